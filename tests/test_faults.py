"""Damaged images and full disks: every event is finished or fails with a reason, without a crash or a hang."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from img_io import open_event, read_window
from rasters.maps import ScoreMap
from tests.disks import mounted
from tests.helpers import whole
from tests.scripts import DEMO_SAM, run_process
from tests.tiffs import TRANSFORM, crs, write_tiff
from utils import EventError, Window, read_event

SIDE = 96
FLIPPED, CUTS = 500, 16
ONE_POINT = {"ANOMALYCD_STAGE1_SAM_PARAMS": '{"points_per_side": 1}'}  # the masks do not matter here
KINDS = (
    "cannot be opened",
    "damaged or cut off",
    "pixels; at least",
    "pixels; at most",
    "CRSs differ",
    "overlap",
    "bands",
)
RNG = np.random.default_rng(7)
RGB = np.kron(RNG.integers(1, 256, (8, 8, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
STORED = (
    (),
    ("COMPRESS=DEFLATE", "TILED=YES", "BLOCKXSIZE=32", "BLOCKYSIZE=32"),
    ("COMPRESS=LZW",),
    ("COMPRESS=JPEG", "PHOTOMETRIC=YCBCR"),
    ("COMPRESS=ZSTD", "INTERLEAVE=BAND"),
    ("COMPRESS=DEFLATE", "BIGTIFF=YES"),
)


def image_bytes(path: Path, options: tuple[str, ...]) -> bytes:
    def place(dataset: object) -> None:
        dataset.SetGeoTransform(TRANSFORM)  # type: ignore[attr-defined]
        dataset.SetSpatialRef(crs(32632))  # type: ignore[attr-defined]

    return write_tiff(path, RGB, *options, change=place).read_bytes()


def flipped(content: bytes) -> bytes:
    """Change one to three bytes: in the header, anywhere, or in a directory at the end."""
    damaged = bytearray(content)
    parts = ((0, 400), (0, len(content)), (max(0, len(content) - 600), len(content)))
    for _ in range(RNG.integers(1, 4)):
        first, end = parts[RNG.integers(len(parts))]
        damaged[RNG.integers(first, min(end, len(content)))] = RNG.integers(256)
    return bytes(damaged)


def write_events(data_root: Path, damage: Callable[[bytes, int], bytes], count: int, options: tuple[str, ...]) -> None:
    """Events with a damaged monitor image and one undamaged historical image."""
    data_root.mkdir(parents=True, exist_ok=True)
    good = image_bytes(data_root / "good.tif", ())
    content = image_bytes(data_root / "content.tif", options)
    for number in range(count):
        folder = data_root / f"6_{'_'.join(options).replace('=', '')}_{number}"
        folder.mkdir()
        (folder / "normal_20180614.tif").write_bytes(good)
        (folder / "anomaly_20210720.tif").write_bytes(damage(content, number))


def kinds_of(reasons: Iterable[str]) -> Counter[str]:
    """Count the reasons by kind."""
    return Counter(next((kind for kind in KINDS if kind in reason), "other") for reason in reasons)


def open_all(data_root: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Open every event and read all its pixels; returns the reasons of unreadable events by name."""
    reasons = {}
    for folder in (path for path in data_root.iterdir() if path.is_dir()):
        try:
            images = open_event(read_event(folder))
            for image in (*images.historical, images.monitor):
                read_window(image, Window(0, 0, *image.shape[::-1]))
        except EventError as error:
            reasons[folder.name] = str(error)
    assert "ERROR" not in capfd.readouterr().err  # GDAL's messages
    return reasons


def run_all(data_root: Path, root: Path) -> dict[str, str]:
    """Run `run.py` on all events; returns the reasons of failed events by name."""
    roots = ("--data-root", data_root, "--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    done = run_process("run.py", *roots, *DEMO_SAM, **ONE_POINT)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert "ERROR" not in done.stderr
    (summary,) = re.findall(r"both stages: (\d+) done, (\d+) skipped, (\d+) failed", done.stderr)
    finished, skipped, failed = map(int, summary)
    lines = "\n".join(done.stderr.splitlines())
    reasons = dict(re.findall(r"^error: (\S+): both stages failed: (.*)", lines, re.MULTILINE))
    assert len(reasons) == failed
    assert skipped == 0
    assert finished + failed == sum(path.is_dir() for path in data_root.iterdir())
    return reasons


def assert_scripts_agree(data_root: Path, reasons: dict[str, str], every: int, scratch: Path) -> None:
    """Assert that `run.py` refuses the same events for the same kinds of reasons, for one in `every` events."""
    chosen = sorted(path for path in data_root.iterdir() if path.is_dir())[::every]
    for folder in chosen:
        (scratch / "data").mkdir(parents=True, exist_ok=True)
        folder.rename(scratch / "data" / folder.name)
    expected = {folder.name: reasons[folder.name] for folder in chosen if folder.name in reasons}
    found = run_all(scratch / "data", scratch)
    assert found.keys() == expected.keys()
    assert {name: kinds_of([reason]) for name, reason in found.items()} == {
        name: kinds_of([reason]) for name, reason in expected.items()
    }


def test_images_with_flipped_bytes_are_finished_or_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, options in enumerate(STORED):
        share = FLIPPED // len(STORED) + (number < FLIPPED % len(STORED))
        write_events(tmp_path / "data", lambda content, _: flipped(content), share, options)
    reasons = open_all(tmp_path / "data", capfd)
    found = kinds_of(reasons.values())
    print(FLIPPED - len(reasons), dict(found))
    assert FLIPPED - len(reasons) > 100  # a changed pixel cannot be detected
    assert found["cannot be opened"] > 20
    assert found["damaged or cut off"] > 20
    assert_scripts_agree(tmp_path / "data", reasons, 10, tmp_path / "scripts")


def test_truncated_images_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for options in STORED:
        write_events(tmp_path / "data", lambda content, n: content[: len(content) * n // CUTS], CUTS, options)
    reasons = open_all(tmp_path / "data", capfd)
    assert len(reasons) == CUTS * len(STORED)
    found = kinds_of(reasons.values())
    assert found["cannot be opened"] + found["damaged or cut off"] == len(reasons)
    assert_scripts_agree(tmp_path / "data", reasons, 10, tmp_path / "scripts")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that even root cannot write to."""
    with mounted(tmp_path / "read_only", "ro") as folder:
        yield folder


def test_a_read_only_output_folder_is_reported(tmp_path: Path, read_only: Path) -> None:
    write_events(tmp_path / "data", lambda content, _: content, 2, ())
    roots = ("--stage1-root", read_only / "stage1", "--stage2-root", read_only / "stage2")
    done = run_process("run.py", "--data-root", tmp_path / "data", *roots, *DEMO_SAM, **ONE_POINT)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Read-only file system") >= 2


@pytest.mark.parametrize("kibibytes", [0, 8, 40, 120, 250])
def test_a_full_disk_leaves_only_complete_maps(tmp_path: Path, small_disk: Path, kibibytes: int) -> None:
    write_events(tmp_path / "data", lambda content, _: content, 2, ())
    (small_disk / "ballast").write_bytes(bytes((1024 - kibibytes) << 10))
    roots = ("--stage1-root", small_disk / "stage1", "--stage2-root", small_disk / "stage2")
    arguments = ("--data-root", tmp_path / "data", *roots, *DEMO_SAM)
    done = run_process("run.py", *arguments, **ONE_POINT)
    assert "Traceback" not in done.stderr
    assert (done.returncode == 1) == ("No space left" in done.stderr)
    for path in small_disk.rglob("*.tif"):
        if not path.name.startswith("."):
            assert np.isfinite(whole(ScoreMap(path))).all()
    (small_disk / "ballast").unlink()
    done = run_process("run.py", *arguments, **ONE_POINT)
    assert "both stages: 2 done, 0 skipped, 0 failed" in done.stderr
