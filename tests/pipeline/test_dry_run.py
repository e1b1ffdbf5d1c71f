"""`--dry-run` and its memory estimate."""

import re
from pathlib import Path

import pytest

import config
import run
import run_stage2
from pipeline.dry_run import rounded
from sam.execution import Execution
from sam.memory import LIBRARY_BYTES, WINDOW_BYTES, WINDOWS_AT_ONCE, Memory, estimate_memory
from tests.scripts import CONTROL, DEMO_SAM, FIRE

DATES = "5 dates, 2018-06-14 to 2021-07-20"
CONTROL_ROW, FIRE_ROW = f"{CONTROL} 256 x 256 {DATES}", f"{FIRE} 256 x 256 {DATES}, label"


def dry_run(capsys: pytest.CaptureFixture[str], data: Path, root: Path, *flags: str) -> tuple[int, list[str]]:
    roots = ("--data-root", data, "--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    code = run.main([*map(str, roots), *DEMO_SAM, *flags, "--dry-run"])
    return code, [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_dry_run_lists_events_windows_and_memory(
    small_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "STAGE2_SMALL_PATCH_SIZE", 64)
    code, lines = dry_run(capsys, small_events, tmp_path, "--patch-size", "130")
    assert code == 0
    assert lines[:3] == [
        f"{CONTROL_ROW} 4 windows; 16 windows",
        f"{FIRE_ROW} 4 windows; 16 windows",
        "both stages: 40 windows to compute in 2 events, 0 skipped, 0 would fail",
    ]
    assert lines[3] == f"SAM vit_demo: {config.DEMO_CHECKPOINT} (of the tests, for synthetic scenes only)"
    assert lines[4].endswith("GiB of memory")
    assert lines[5].startswith("an unfinished event takes up to 0.0 GiB of disk space for its windows")
    assert re.fullmatch(
        r"it takes about (a|\d+) minutes? on cpu, estimated from the speed of matrix products", lines[6]
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "a minute"),
        (60, "1 minute"),
        (95, "2 minutes"),
        (1234, "20 minutes"),
        (3600, "1 hour"),
        (9_000, "2 hours"),
        (200_000, "2 days"),
    ],
)
def test_times_have_one_digit(seconds: float, text: str) -> None:
    assert rounded(seconds) == text


def test_time_is_estimated_for_all_images_of_all_windows(
    small_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def estimate(model_type: str, device: object, precision: str, encoded: int, masked: int) -> float:
        asked.append((encoded, masked))
        return 0.0

    monkeypatch.setattr("pipeline.dry_run.estimate_seconds", estimate)
    monkeypatch.setattr(config, "STAGE2_SMALL_PATCH_SIZE", 64)
    dry_run(capsys, small_events, tmp_path, "--patch-size", "130")
    # Two events: 4 windows of 2 images in stage 1, 16 windows of 5 dates in stage 2.
    assert asked == [(2 * (4 * 2 + 16 * 5), 2 * 4 * 2)]


def test_dry_run_counts_overlapping_windows(
    small_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "STAGE2_SMALL_PATCH_SIZE", 64)
    code, lines = dry_run(capsys, small_events, tmp_path, "--patch-size", "130", "--event", FIRE, "--overlap", "20")
    assert code == 0
    # Starts along a side: 0, 110, 126; and 0, 44, 88, 132, 176, 192.
    assert lines[0] == f"{FIRE_ROW} 9 windows; 36 windows"


def test_memory_is_estimated_for_the_largest_window_of_a_stage(
    small_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def estimate(model_type: str, device_type: str, execution: Execution, largest_window: int) -> Memory:
        asked.append(largest_window)
        return Memory(0, 0)

    monkeypatch.setattr("pipeline.dry_run.estimate_memory", estimate)
    monkeypatch.setattr(config, "STAGE2_SMALL_PATCH_SIZE", 64)
    for size in ("130", "60"):
        dry_run(capsys, small_events, tmp_path, "--patch-size", size)
    assert asked == [130 * 130, 64 * 64]


def test_dry_run_lists_skipped_stages_and_changes_no_file(
    small_events: Path, finished: Path, few_points: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(finished)
    code, lines = dry_run(capsys, small_events, finished, "--skip-existing-stage2")
    assert code == 0
    assert lines[0] == f"{CONTROL_ROW} skipped: its change map exists; skipped: its anomaly map exists"
    assert lines[-1] == "both stages: 0 windows to compute in 0 events, 2 skipped, 0 would fail"
    _, lines = dry_run(capsys, small_events, finished)  # stage 2 is computed again by default
    assert lines[0] == f"{CONTROL_ROW} skipped: its change map exists; 1 window"
    _, lines = dry_run(capsys, small_events, finished, "--no-skip-existing-stage1", "--skip-existing-stage2")
    assert lines[0] == f"{CONTROL_ROW} 1 window; 1 window"
    assert files(finished) == before


def test_dry_run_counts_finished_windows(
    small_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.window_store import WindowStore

    written: list[object] = []

    def write_two(store: WindowStore, window: object, values: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(window)
        original(store, window, values)  # type: ignore[arg-type]

    original = WindowStore.write
    monkeypatch.setattr(WindowStore, "write", write_two)
    monkeypatch.setitem(config.STAGE1_SAM_PARAMS, "points_per_side", 2)
    roots = ("--data-root", small_events, "--stage1-root", tmp_path / "stage1", "--stage2-root", tmp_path / "stage2")
    with pytest.raises(KeyboardInterrupt):
        run.main([*map(str, roots), *DEMO_SAM, "--patch-size", "130"])
    _, lines = dry_run(capsys, small_events, tmp_path, "--patch-size", "130")
    assert lines[0] == f"{CONTROL_ROW} 2 windows, 2 already finished; 1 window"


def test_dry_run_lists_events_that_would_fail(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((data_root / FIRE).glob("normal_*.tif"))
    image.write_bytes(b"no image")
    (data_root / "1_empty").mkdir()
    code, lines = dry_run(capsys, data_root, tmp_path)
    assert code == 1
    assert lines[1].startswith(f"{FIRE} {DATES}, label would fail: {image}: cannot be opened")
    assert lines[2].startswith("1_empty skipped: 0 images")
    assert lines[3] == "both stages: 2 windows to compute in 1 events, 1 skipped, 1 would fail"


def test_dry_run_of_stage_2_needs_the_change_map(
    small_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = ("--data-root", small_events, "--stage1-root", tmp_path, "--output-root", tmp_path)
    assert run_stage2.main([*map(str, roots), *DEMO_SAM, "--dry-run"]) == 1
    assert "no stage 1 output for this event; run stage 1 first" in capsys.readouterr().out


def test_dry_run_downloads_no_weights(
    small_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "WEIGHTS_DIR", tmp_path)
    monkeypatch.setattr("sam.weights.fetch", lambda *_: pytest.fail("downloaded"))
    flags = ("--sam-model-type", "vit_h", "--ray")
    arguments = ("--data-root", small_events, "--stage1-root", tmp_path, "--stage2-root", tmp_path, *flags)
    assert run.main([*map(str, arguments), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "sam_vit_h_4b8939.pth (official, to be downloaded)" in shown
    assert "of its GPU's" in shown  # workers of a cluster are assumed to have GPUs
    assert not list(tmp_path.iterdir())


def test_memory_estimate_adds_its_parts() -> None:
    small = estimate_memory("vit_demo", "cpu", Execution(points_per_batch=1, encode_batch=1), 1)
    large = estimate_memory("vit_demo", "cpu", Execution(points_per_batch=1, encode_batch=1), 1 + 1000)
    assert large.host_bytes - small.host_bytes == 1000 * WINDOW_BYTES * WINDOWS_AT_ONCE
    assert small.device_bytes == 0
    weights = config.DEMO_CHECKPOINT.stat().st_size
    masks = 32 * 32 * 3 * 128 * 128 * 4  # points, masks per point, bytes of a low-resolution mask
    assert small.host_bytes > LIBRARY_BYTES + weights + masks
    assert estimate_memory("vit_b", "cuda", Execution(), 2048**2) > Memory(LIBRARY_BYTES, 2 << 30)
    of_type = [estimate_memory(name, "cuda", Execution(), 1).device_bytes for name in ("vit_b", "vit_l", "vit_h")]
    assert of_type == sorted(of_type)
