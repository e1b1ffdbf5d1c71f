from collections.abc import Callable
from pathlib import Path

import pytest

from runs import run_events
from tests.scripts import run_process
from utils import Event, EventError, Listing, UsageError


def listing_of(*event_names: str) -> Listing:
    return Listing([Event(Path(name), Path("m.tif"), (Path("n.tif"),), None) for name in event_names])


def two_windows(_: Event) -> int:
    return 2


def do_both(_: Event, window_done: Callable[[], object]) -> None:
    for _window in range(2):
        window_done()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EventError("x.tif: is\ncut off"), "x.tif: is cut off"),
        (UsageError("no weights"), "no weights"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (MemoryError(), "MemoryError"),
        (ZeroDivisionError("by zero"), "unexpected ZeroDivisionError: by zero"),
    ],
)
def test_a_failing_event_does_not_stop_the_others(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO", "anomalycd")

    def process(event: Event, window_done: Callable[[], object]) -> None:
        window_done()
        if event.name == "2_b":
            raise error
        window_done()

    summary = run_events("stage 1", listing_of("1_a", "2_b", "3_c"), two_windows, process)
    assert summary.done == ["1_a", "3_c"]
    assert summary.failed == [("2_b", reason)]
    assert summary.exit_code == 1
    assert f"2_b: stage 1 failed: {reason}" in caplog.messages
    assert any(line.startswith("stage 1: 2 done, 0 skipped, 1 failed in ") for line in caplog.messages)
    assert f"  failed 2_b: {reason}" in caplog.messages
    assert "6/6" in capsys.readouterr().err  # the bar moves past the windows that the failed event left


def test_the_trace_of_an_unexpected_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def process(_: Event, __: Callable[[], object]) -> None:
        raise KeyError("a defect")

    run_events("stage 1", listing_of("1_a"), two_windows, process)
    assert "Traceback" in caplog.text


def test_skipped_events_are_no_failures(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level("INFO", "anomalycd")
    listing = listing_of("1_a", "2_b")
    listing.skipped.append(("3_c", "no images"))
    summary = run_events("stage 2", listing, two_windows, lambda _, __: "its map exists", unit="date")
    assert summary.skipped == [("3_c", "no images"), ("1_a", "its map exists"), ("2_b", "its map exists")]
    assert summary.exit_code == 0
    assert "  skipped 3_c: no images" in caplog.messages
    assert "4/4" in capsys.readouterr().err


@pytest.mark.parametrize("error", [EventError("x.tif: cut off"), RuntimeError("a defect")])
def test_an_event_whose_windows_cannot_be_counted_still_has_its_turn(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(event: Event) -> int:
        if event.name == "1_a":
            raise error
        return 2

    summary = run_events("stage 1", listing_of("1_a", "2_b"), count, do_both)
    assert summary.done == ["1_a", "2_b"]
    assert "2/2" in capsys.readouterr().err


def test_an_interrupted_run_still_sums_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "anomalycd")

    def process(event: Event, _: Callable[[], object]) -> None:
        if event.name == "2_b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_events("stage 1", listing_of("1_a", "2_b"), two_windows, process)
    assert any(line.startswith("stage 1: 1 done") for line in caplog.messages)


@pytest.mark.parametrize(
    ("body", "code", "lines"),
    [
        ("return 0", 0, []),
        ("return 1", 1, []),
        ("raise utils.UsageError('no such thing')", 2, ["error: no such thing"]),
        ("raise OSError(28, 'No space left', 'a.csv')", 1, ["error: [Errno 28] No space left: 'a.csv'"]),
        ("raise KeyboardInterrupt", 130, ["error: interrupted; finished events are kept"]),
        ("utils.LOG.info('hello'); utils.LOG.warning('careful'); return 0", 0, ["hello", "warning: careful"]),
    ],
)
def test_a_script_exits_with_its_code_and_one_line(body: str, code: int, lines: list[str]) -> None:
    done = run_process("-c", f"import runs, utils\ndef main():\n    {body}\nruns.run_script(main)")
    assert done.returncode == code
    assert done.stderr.splitlines() == lines
    assert not done.stdout


def test_a_script_tells_what_the_environment_changed() -> None:
    done = run_process("-c", "import runs; runs.run_script(lambda: 0)", ANOMALYCD_STAGE1_PATCH_SIZE="512")
    assert done.stderr.splitlines() == ["config: STAGE1_PATCH_SIZE=512 from the environment"]
