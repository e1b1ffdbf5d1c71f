"""A stage that is killed while it writes its outputs: the next run completes them, and leaves nothing else behind."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest

import run
from benchmarks.stepwise import compute_windows
from pipeline.stage import Stage, advance
from pipeline.window_store import WindowStore
from sam.engine import SamEngine
from sam.weights import SamIdentity
from tests.scripts import CONTROL, DEMO_SAM, fork_server
from utils import read_event

SAM = SamIdentity({"sam_model_type": "vit_demo"}, "sam_vit_demo.pth")


def write_and_die(stage: Stage, files: int) -> None:
    """Write a stage's outputs; killed when one more file than `files` is synced, or when the windows are removed."""
    synced = itertools.count()

    def die(store: WindowStore | None = None) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def sync(fd: object) -> None:
        if next(synced) == files:
            die()

    os.fsync = sync
    WindowStore.remove = die  # type: ignore[assignment, method-assign]
    advance(stage, [], SAM)


def names(folder: Path) -> set[str]:
    """All files and folders below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.slow
def test_outputs_are_completed(
    small_events: Path, tmp_path: Path, demo_engine: SamEngine, few_points: None, one_thread: None
) -> None:
    roots = ("--data-root", small_events, "--stage1-root", tmp_path / "stage1", "--stage2-root", tmp_path / "stage2")
    args = run.parse_arguments([*map(str, roots), "--explain", "--skip-existing-stage2", *DEMO_SAM])
    for request in run.plan(read_event(small_events / CONTROL), args):
        step = advance(None, [request], SAM)
        assert step.stage is not None
        compute_windows(step, demo_engine, None)
        computed = shutil.copytree(request.folder, tmp_path / f"computed in {request.NAME}")
        assert advance(step.stage, [], SAM).stage is None
        expected = names(request.folder)
        for files in itertools.count():
            shutil.rmtree(request.folder)
            shutil.copytree(computed, request.folder)
            process = fork_server().Process(target=write_and_die, args=(step.stage, files))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            was_complete = expected < names(request.folder)
            assert advance(None, [request], SAM).stage is None
            assert names(request.folder) == expected
            if was_complete:
                break
        assert files == len(expected)  # each file was the one that was not finished
