import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cli.script
from cli.progress import Kind, follow_run, run_events
from cli.script import INTERRUPTS, Interrupted, deferred_interrupts
from tests.scripts import run_process
from utils import Event, EventBusyError, EventError, Listing, UsageError

KEPT = "finished work is kept, and the next run resumes from it"
PROGRAM = """
import signal
import utils
from cli import flags, progress, script

def end_twice():
    try:
        signal.raise_signal(2)
    finally:
        signal.raise_signal(2)

def end_twice_deferred():
    with script.deferred_interrupts():
        signal.raise_signal(2)
        signal.raise_signal(15)

"""


def listing_of(*event_names: str) -> Listing:
    return Listing([Event(Path(name), Path("m.tif"), (Path("n.tif"),), None) for name in event_names])


def two_windows(_: Event) -> int:
    return 2


def process_two_windows(_: Event, units_done: Callable[[], object]) -> None:
    for _window in range(2):
        units_done()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EventError("x.tif: is\ncut off"), "x.tif: is cut off"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (FileNotFoundError(2, "No such file or directory", "a.tif"), "a.tif: No such file or directory"),
        (MemoryError(), "MemoryError"),
        (
            ZeroDivisionError("by zero"),
            "unexpected ZeroDivisionError: by zero (use --log-file to record the traceback)",
        ),
    ],
)
def test_a_failing_event_does_not_stop_the_others(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO", "anomalycd")

    def process(event: Event, units_done: Callable[[], object]) -> None:
        units_done()
        if event.name == "2_b":
            raise error
        units_done()

    summary = run_events("stage 1", listing_of("1_a", "2_b", "3_c"), two_windows, process)
    assert summary.done == ["1_a", "3_c"]
    assert summary.failed == [("2_b", reason)]
    assert summary.exit_code == 1
    assert f"2_b: stage 1 failed: {reason}" in caplog.messages
    assert any(line.startswith("stage 1: 2 done, 0 skipped, 1 failed in ") for line in caplog.messages)
    assert "  failed 2_b" in caplog.messages
    assert sum(reason in line for line in caplog.messages) == 1
    assert "6/6" in capsys.readouterr().err  # the bar counts the remaining windows of the failed event


def test_a_usage_error_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "anomalycd")

    def process(event: Event, _: Callable[[], object]) -> None:
        if event.name == "2_b":
            raise UsageError("no weights")

    with pytest.raises(UsageError, match="no weights"):
        run_events("stage 1", listing_of("1_a", "2_b", "3_c"), two_windows, process)
    assert any(line.startswith("stage 1: 1 done, 0 skipped, 0 failed") for line in caplog.messages)


def test_the_trace_of_an_unexpected_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def process(_: Event, __: Callable[[], object]) -> None:
        raise KeyError("a defect")

    caplog.set_level("DEBUG", "anomalycd")
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


def test_a_summary_ends_with_what_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    listing = listing_of("1_a")
    listing.other_folders.append("old")
    listing.loose_files += ["a.tif", "b.tif"]
    run_events("stage 1", listing, two_windows, process_two_windows)
    assert caplog.messages[-2:] == [
        "  1 folder is no event: old (names begin with 0_ to 6_)",
        "  2 loose files are ignored: a.tif, b.tif (images lie in one folder per event)",
    ]


@pytest.mark.parametrize("error", [EventError("x.tif: cut off"), RuntimeError("a defect")])
def test_an_event_is_processed_even_if_its_windows_cannot_be_counted(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(event: Event) -> int:
        if event.name == "1_a":
            raise error
        return 2

    summary = run_events("stage 1", listing_of("1_a", "2_b"), count, process_two_windows)
    assert summary.done == ["1_a", "2_b"]
    assert "2/2" in capsys.readouterr().err


def test_an_interrupted_run_logs_its_summary(caplog: pytest.LogCaptureFixture) -> None:
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
        ("raise OSError(28, 'No space left', 'a.csv')", 1, ["error: a.csv: No space left"]),
        (
            "raise KeyError('a defect')",
            1,
            ["error: unexpected KeyError: 'a defect' (use --log-file to record the traceback)"],
        ),
        ("signal.raise_signal(2)", 130, [f"error: interrupted (SIGINT); {KEPT}"]),
        ("signal.raise_signal(15)", 143, [f"error: interrupted (SIGTERM); {KEPT}"]),
        ("end_twice()", 130, ["", "ended at once (second SIGINT); finished work is kept"]),
        ("end_twice_deferred()", 143, ["", "ended at once (second SIGTERM); finished work is kept"]),
        ("utils.LOG.info('hello'); utils.LOG.warning('careful'); return 0", 0, ["hello", "warning: careful"]),
    ],
)
def test_a_script_exits_with_its_code_and_one_line(body: str, code: int, lines: list[str]) -> None:
    done = run_process("-c", f"{PROGRAM}def main():\n    {body}\nscript.run_script(main)")
    assert done.returncode == code
    assert done.stderr.splitlines() == lines
    assert not done.stdout


def test_a_script_logs_settings_from_the_environment() -> None:
    done = run_process("-c", "from cli import script; script.run_script(lambda: 0)", ANOMALYCD_STAGE1_PATCH_SIZE="512")
    assert done.stderr.splitlines() == ["config: STAGE1_PATCH_SIZE=512 from the environment"]


def test_a_busy_event_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    def process(_: Event, __: Callable[[], object]) -> None:
        raise EventBusyError("out/1_a: is locked by process 7")

    summary = run_events("stage 1", listing_of("1_a"), two_windows, process)
    assert summary.skipped == [("1_a", "out/1_a: is locked by process 7")]
    assert summary.exit_code == 0


def test_an_interrupted_run_names_unfinished_events(caplog: pytest.LogCaptureFixture) -> None:
    def process(event: Event, _: Callable[[], object]) -> None:
        if event.name == "2_b":
            raise Interrupted(15)

    with pytest.raises(Interrupted):
        run_events("stage 1", listing_of("1_a", "2_b", "3_c"), two_windows, process)
    assert any(line.startswith("stage 1: 1 done, 0 skipped, 0 failed, 2 not finished in") for line in caplog.messages)
    assert caplog.messages[-2:] == ["  not finished 2_b", "  not finished 3_c"]


LOGGING = """
import argparse, sys, utils
from cli import flags, progress, script
from pathlib import Path

def main():
    parser = argparse.ArgumentParser()
    flags.add_log_argument(parser)
    with script.keep_log(parser.parse_args().log_file):
        def fail(event, units_done):
            raise utils.EventError("a.tif: is cut off")
        event = utils.Event(Path("1_a"), Path("a.tif"), (Path("b.tif"),), None)
        return progress.run_events("stage 1", utils.Listing([event]), lambda event: 1, fail).exit_code

script.run_script(main)
"""


def test_tracebacks_go_to_the_log_file_only(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "night.log"
    for runs_so_far in (1, 2):
        done = run_process("-c", LOGGING, "--log-file", path)
        assert done.returncode == 1
        assert "error: 1_a: stage 1 failed: a.tif: is cut off" in done.stderr
        assert "Traceback" not in done.stderr
        log = path.read_text(encoding="utf-8")
        assert log.count("Traceback") == log.count("utils.EventError: a.tif: is cut off") == runs_so_far
        assert log.count("stage 1: 0 done, 0 skipped, 1 failed") == runs_so_far
        assert f"--log-file {path}" in log


def test_a_log_file_that_cannot_be_written_is_wrong_usage(tmp_path: Path) -> None:
    done = run_process("-c", LOGGING, "--log-file", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}: cannot be written (Is a directory); name another --log-file\n"


# --- Concurrent events ------------------------------------------------------------------------------------------------
def test_follow_run_tracks_concurrent_events(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO", "anomalycd")
    listing = listing_of("1_a", "2_b", "3_c", "4_d")
    first, second, third, _ = listing.events
    with follow_run("stage 1", listing, two_windows) as progress:
        for event in (first, second):
            progress.begin(event)
            progress.units_done(event)
        progress.begin(third)
        assert progress.units_left(first) == 1
        progress.done(second, None)
        progress.failed(third, EventError("cut off"))
        progress.done(first, "it exists")
    assert progress.summary.done == ["2_b"]
    assert progress.summary.skipped == [("1_a", "it exists")]
    assert progress.summary.failed == [("3_c", "cut off")]
    assert progress.summary.not_reached == ["4_d"]
    assert "6/8" in capsys.readouterr().err  # windows of skipped and failed events count as done
    assert "stage 1: 1 done, 1 skipped, 1 failed, 1 not finished" in caplog.text


@pytest.fixture
def restored_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", INTERRUPTS)
def test_a_deferred_interrupt_is_raised_by_check(restored_handlers: None, number: signal.Signals) -> None:
    with deferred_interrupts() as check:
        check()
        signal.raise_signal(number)
        with pytest.raises(Interrupted) as interrupted:
            check()
    assert interrupted.value.exit_code == 128 + number
    assert signal.getsignal(number) is cli.script._end_at_once  # the run is ending


def test_signal_handlers_are_restored_without_an_interrupt(restored_handlers: None) -> None:
    before = [signal.getsignal(number) for number in INTERRUPTS]
    with deferred_interrupts() as check:
        check()
        assert [signal.getsignal(number) for number in INTERRUPTS] != before
    assert [signal.getsignal(number) for number in INTERRUPTS] == before


# --- Work -------------------------------------------------------------------------------------------------------------
def test_the_bar_counts_work_and_leaves_out_what_is_not_computed(capsys: pytest.CaptureFixture[str]) -> None:
    masks, scores = Kind("stage 1", 9.0), Kind("stage 2", 1.0)
    listing = listing_of("1_a", "2_b")
    first, second = listing.events
    with follow_run("both", listing, lambda _: {masks: 2, scores: 2}) as progress:
        bar = progress._bar
        assert (bar.n, bar.total) == (0, 40)
        progress.begin(first)
        progress.units_found(first, 1, masks)  # of an earlier run
        assert (bar.n, bar.total, bar.counted) == (0, 31, (1, 8))
        progress.work_in_hand(5)  # within a window
        assert bar.n == 5
        progress.work_in_hand(6)  # of which 2 belong to the next one
        progress.units_done(first, 1, masks)
        assert (bar.n, bar.counted) == (11, (2, 8))
        progress.units_done(first, 2, scores)
        assert bar.n == 11
        progress.done(first, None)
        progress.begin(second)
        progress.done(second, "it exists")
        assert bar.total == 11
        assert bar.counted == (8, 8)
        assert list(progress.seconds) == ["stage 1", "stage 2"]
    assert "8/8" in capsys.readouterr().err


def test_a_run_ends_with_the_time_of_each_stage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "anomalycd")
    listing = listing_of("1_a")
    kind = Kind("stage 2", 1.0)
    with follow_run("both", listing, lambda _: {kind: 1}) as progress:
        progress.begin(listing.events[0])
        progress.units_done(listing.events[0], 1, kind)
        progress.done(listing.events[0], None)
    assert "both: stage 2 00:00" in caplog.messages
