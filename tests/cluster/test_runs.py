"""Runs of the dispatcher with real stages on workers in this process: maps, and faults of workers and files."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import config
import run
import run_stage1
import run_stage2
from pipeline.window_store import ComputedWindow, WindowStore
from rasters.maps import read_parameters
from sam.engine import SamEngine
from tests.cluster.in_process import run_in_process
from tests.cluster.small_runs import arguments, assert_same, outputs
from tests.scripts import CONTROL, DEMO_SAM, FIRE
from utils import Window

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_points", "small_windows")]


def test_maps_equal_those_of_a_single_process(small_events: Path, tmp_path: Path, alone: Path) -> None:
    assert sorted(run_in_process(arguments(small_events, tmp_path)).done) == [CONTROL, FIRE]
    assert_same(tmp_path, alone)


def test_single_stages_make_the_same_maps(small_events: Path, tmp_path: Path, alone: Path) -> None:
    flags = ["--data-root", str(small_events), *DEMO_SAM]
    changes, anomalies = (str(tmp_path / name) for name in ("stage1", "stage2"))
    first = run_in_process([*flags, "--output-root", changes, "--patch-size", "130"], run_stage1)
    second = run_in_process([*flags, "--explain", "--stage1-root", changes, "--output-root", anomalies], run_stage2)
    assert sorted(first.done) == sorted(second.done) == [CONTROL, FIRE]
    assert_same(tmp_path, alone)


def test_overlapping_windows_make_the_maps_of_a_single_process(data_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(data_root / CONTROL)
    assert run.main([*arguments(data_root, tmp_path / "local"), "--overlap", "4"]) == 0
    assert run_in_process([*arguments(data_root, tmp_path / "workers"), "--overlap", "4"]).done == [FIRE]
    assert_same(tmp_path / "workers", tmp_path / "local")
    recorded = read_parameters(tmp_path / "local" / "stage2" / FIRE / config.ANOMALY_MAP_NAME)
    assert recorded is not None
    assert recorded["overlap"] == recorded["stage1"]["overlap"] == 4


def test_existing_maps_are_skipped(small_events: Path, tmp_path: Path, alone: Path) -> None:
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    summary = run_in_process([*arguments(small_events, tmp_path), "--skip-existing-stage2"])
    assert not summary.done
    assert not summary.failed
    assert (FIRE, "its change map exists and its anomaly map exists") in summary.skipped
    assert len(summary.skipped) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("the device fell off the bus"),
            r"3 workers were lost with its window of 130 x 130 at \(\d+, \d+\): unexpected RuntimeError: the",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_an_event_on_which_workers_always_fail_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    small_events: Path,
    tmp_path: Path,
    alone: Path,
    error: Exception,
    reason: str,
) -> None:
    write = WindowStore.write

    def fail_on_control(store: WindowStore, window: Window, computed: ComputedWindow) -> None:
        if CONTROL in str(store.folder):
            raise error
        write(store, window, computed)

    monkeypatch.setattr(WindowStore, "write", fail_on_control)
    summary = run_in_process(arguments(small_events, tmp_path))
    assert summary.exit_code == 1
    assert summary.done == [FIRE]
    ((name, message),) = summary.failed
    assert name == CONTROL
    assert re.search(reason, message), message
    assert "Traceback" not in caplog.text
    assert outputs(tmp_path) == {name: value for name, value in outputs(alone).items() if FIRE in name}
    assert not list(tmp_path.glob(f"*/{CONTROL}"))


def test_a_worker_halves_its_batch_when_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, small_events: Path, tmp_path: Path
) -> None:
    encode = SamEngine._encode_batch
    failed: list[int] = []

    def run_out_of_memory(engine: SamEngine, images: Any) -> Any:
        if len(images) > 1 and not failed:
            failed.append(len(images))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(engine, images)

    monkeypatch.setattr(SamEngine, "_encode_batch", run_out_of_memory)
    assert run_in_process([*arguments(small_events, tmp_path / "out"), "--encode-batch", "2"]).exit_code == 0
    assert failed == [2]
    assert "out of device memory with --encode-batch 2: halving it" in caplog.text
    # Equal to a run that starts with the smaller batch.
    assert run_in_process([*arguments(small_events, tmp_path / "small"), "--encode-batch", "1"]).exit_code == 0
    assert_same(tmp_path / "out", tmp_path / "small")


def test_a_bad_event_fails_as_in_a_single_process(data_root: Path, tmp_path: Path) -> None:
    monitor = next((data_root / CONTROL).glob("normal_*.tif"))
    content = monitor.read_bytes()
    monitor.write_bytes(content[: len(content) // 2])
    summary = run_in_process(arguments(data_root, tmp_path))
    assert summary.exit_code == 1
    assert summary.done == [FIRE]
    ((name, message),) = summary.failed
    assert name == CONTROL
    assert message.startswith(f"{monitor}: c")
