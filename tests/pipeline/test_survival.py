"""Runs that are killed, interrupted or doubled: nothing that was finished is lost, and no file is half written."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import config
import run
from cli.event_lock import LOCK_NAME, event_lock
from pipeline.window_store import HEADER_NAME
from rasters.maps import ScoreMap
from sam.engine import SamEngine, ScaledImage
from sam.features import WindowFeatures
from tests.helpers import whole
from tests.scripts import CONTROL, DEMO_SAM, FEW_POINTS, Dialogue, run_process, started
from utils import EventBusyError

ONE_EVENT = ("--event", CONTROL)
SMALL_WINDOWS = {"ANOMALYCD_STAGE2_PATCH_SIZE": "130", "ANOMALYCD_STAGE2_SMALL_PATCH_SIZE": "130"}  # 4 of them


def arguments(data: Path, root: Path) -> list[str]:
    roots = ("--data-root", data, "--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    return [*map(str, roots), "--patch-size", "130", *DEMO_SAM]


@pytest.fixture(scope="module")
def undisturbed(small_events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    done = run_process("run.py", *arguments(small_events, root), **FEW_POINTS, **SMALL_WINDOWS)
    assert done.returncode == 0, done.stderr
    return root


@contextmanager
def stepwise(data: Path, root: Path, *flags: str) -> Iterator[Dialogue]:
    """A run that waits after every window."""
    with started("-mtests.stepwise_run", *arguments(data, root), *flags, **FEW_POINTS, **SMALL_WINDOWS) as running:
        yield running


def advance(running: Dialogue, windows: int) -> None:
    """Let a run finish this number of windows; it waits after the last."""
    for step in range(windows):
        if step:
            running.stdin.write("\n")
            running.stdin.flush()
        assert running.stdout.readline().startswith("."), running.finish()


def outputs(root: Path) -> dict[str, bytes]:
    """All pixels of all maps, by name; hidden files are none."""
    paths = [path for path in sorted(root.rglob("*.tif")) if not path.name.startswith(".")]
    return {str(path.relative_to(root)): whole(ScoreMap(path)).tobytes() for path in paths}


def assert_completes(data: Path, root: Path, undisturbed: Path) -> str:
    """Run the event to its end; returns the log."""
    done = run_process("run.py", *arguments(data, root), *ONE_EVENT, **FEW_POINTS, **SMALL_WINDOWS)
    assert done.returncode == 0, done.stderr
    assert outputs(root) == {name: content for name, content in outputs(undisturbed).items() if CONTROL in name}
    assert not list(root.rglob(".*")), "hidden files are left"
    return done.stderr


@pytest.mark.parametrize("windows", [1, 4, 5, 7])  # of 4 in each stage
def test_a_killed_run_is_picked_up_where_it_ended(
    small_events: Path, tmp_path: Path, undisturbed: Path, windows: int
) -> None:
    with stepwise(small_events, tmp_path, *ONE_EVENT) as running:
        advance(running, windows)
        running.process.kill()
    expected = outputs(undisturbed)
    assert all(expected[name] == content for name, content in outputs(tmp_path).items())
    said = assert_completes(small_events, tmp_path, undisturbed)
    if windows % 4:
        assert f"{windows % 4} of 4 windows already finished" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_with_its_summary(
    small_events: Path, tmp_path: Path, undisturbed: Path, number: signal.Signals, code: int
) -> None:
    with stepwise(small_events, tmp_path) as running:
        advance(running, 3)
        running.signal(number)
        said = running.finish()
    assert running.process.exitcode == code
    assert "Traceback" not in said
    assert "both stages: 0 done, 0 skipped, 0 failed, 2 not finished" in said
    assert "windows already finished" in assert_completes(small_events, tmp_path, undisturbed)


def test_windows_of_other_parameters_are_computed_again(small_events: Path, tmp_path: Path, undisturbed: Path) -> None:
    with stepwise(small_events, tmp_path, *ONE_EVENT) as running:
        advance(running, 3)
        running.process.kill()
    (folder,) = (tmp_path / "stage1" / CONTROL).glob(".*.windows-*")
    header = json.loads((folder / HEADER_NAME).read_text())
    (folder / HEADER_NAME).write_text(json.dumps(header | {"patch_size": 128}))
    folder.rename(folder.with_name(f"{folder.name[:-16]}0123456789abcdef"))
    said = assert_completes(small_events, tmp_path, undisturbed)
    assert "windows of an interrupted run are computed again, its settings differ: patch_size" in said


def test_two_runs_at_once_do_not_disturb_each_other(small_events: Path, tmp_path: Path, undisturbed: Path) -> None:
    with stepwise(small_events, tmp_path, *ONE_EVENT) as running:
        advance(running, 2)
        other = run_process("run.py", *arguments(small_events, tmp_path), **FEW_POINTS, **SMALL_WINDOWS)
        assert other.returncode == 0, other.stderr
        assert (
            f"skipped {CONTROL}: {tmp_path / 'stage1' / CONTROL}: is locked by process {running.process.pid}"
            in other.stderr
        )
        assert "1 done, 1 skipped, 0 failed" in other.stderr
        running.finish("\n" * 100)
    assert running.process.exitcode == 0
    assert outputs(tmp_path) == outputs(undisturbed)


def test_a_resumed_run_computes_only_what_is_missing(
    small_events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STAGE2_PATCH_SIZE", "STAGE2_SMALL_PATCH_SIZE"):
        monkeypatch.setattr(config, name, 130)
    monkeypatch.setitem(config.STAGE1_SAM_PARAMS, "points_per_side", 4)
    with stepwise(small_events, tmp_path, *ONE_EVENT) as running:
        advance(running, 3)
        running.process.kill()
    encoded = 0
    encode = SamEngine.encode

    def count(engine: SamEngine, images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        nonlocal encoded
        encoded += len(images)
        return encode(engine, images)

    monkeypatch.setattr(SamEngine, "encode", count)
    assert run.main([*arguments(small_events, tmp_path), *ONE_EVENT]) == 0
    dates = 5
    # Both images in one window of stage 1; in stage 2, all of 3 windows, and what stage 1 did not encode of the last.
    assert encoded == 2 + 3 * dates + (dates - 2)


def test_a_lock_names_its_owner_and_is_gone_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "1_event"
    with event_lock(folder):
        with (
            pytest.raises(EventBusyError, match=f"{folder}: is locked by process {os.getpid()} on"),
            event_lock(folder),
        ):
            pass
        (folder / "map.tif").touch()
    assert [path.name for path in folder.iterdir()] == ["map.tif"]
    with event_lock(folder):
        assert (folder / LOCK_NAME).exists()


def take_locks(folder: Path, times: int) -> int:
    """Lock an empty folder many times; returns how often another process had it."""
    busy = 0
    for _ in range(times):
        try:
            with event_lock(folder):
                pass
        except EventBusyError:
            busy += 1
    return busy


def test_two_processes_take_turns_on_a_folder_that_each_removes(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        both = [pool.submit(take_locks, tmp_path / "1_event", 3000) for _ in range(2)]
        assert all(one.result() < 3000 for one in both)  # no other error, and neither is locked out
    assert not (tmp_path / "1_event").exists()


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1_event").touch()
    with pytest.raises(FileExistsError), event_lock(tmp_path / "1_event"):
        pass


def test_an_error_of_the_block_is_not_hidden_by_its_end(tmp_path: Path) -> None:
    def end() -> None:
        with event_lock(tmp_path / "1_event"):
            shutil.rmtree(tmp_path / "1_event")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        end()


def test_a_lock_whose_owner_is_dead_is_taken_over(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from cli.event_lock import event_lock

with event_lock(Path(sys.argv[1])):
    os._exit(9)
"""
    assert run_process("-c", program, tmp_path / "1_event").returncode == 9
    assert (tmp_path / "1_event" / LOCK_NAME).exists()
    with event_lock(tmp_path / "1_event"):
        pass
    assert not (tmp_path / "1_event").exists()
