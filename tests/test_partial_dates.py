"""Runs of the scripts on stacks whose older dates hold data in a part of the place."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import config
from demo.make_events import HISTORICAL_DATES, MONITOR_DATE
from demo.scenes import make_event
from rasters.maps import ScoreMap, read_parameters
from tests.helpers import whole
from tests.scripts import DEMO_SAM, FEW_POINTS, run_process
from tests.tiffs import write_tiff

SIDE, BLOCK = 256, 32  # pixels
SCENE = make_event(4, 4, SIDE, len(HISTORICAL_DATES))
OLDER = HISTORICAL_DATES[:-1]
Mask = Callable[[int], np.ndarray | None]  # of the older date with this number: where it holds data, (SIDE, SIDE) bool


def whole_dates(date: int) -> np.ndarray | None:
    return None


def third(date: int) -> np.ndarray:
    """Rows of one third of the image."""
    rows = np.arange(SIDE)[:, None] * len(OLDER) // SIDE
    return np.broadcast_to(rows == date, (SIDE, SIDE))


def random_blocks(date: int) -> np.ndarray:
    """All but a third of the blocks; every date lacks another third."""
    blocks = np.random.default_rng(0).permutation((SIDE // BLOCK) ** 2) % 3
    grid = blocks.reshape(SIDE // BLOCK, SIDE // BLOCK) != date
    return np.kron(grid, np.ones((BLOCK, BLOCK), bool))


def oldest_empty(date: int) -> np.ndarray | None:
    return np.zeros((SIDE, SIDE), bool) if date == 0 else None


STACKS: dict[str, Mask] = {
    "whole": whole_dates,
    "thirds": third,
    "blocks": random_blocks,
    "empty": oldest_empty,
}


def write_stack(folder: Path, mask: Mask, first: int = 0) -> None:
    """Write an event whose older dates, from `first` on, are masked; pixels without data have the value 0."""
    folder.mkdir(parents=True)
    for number, (date, image) in enumerate(zip(HISTORICAL_DATES, SCENE.historical, strict=True)):
        valid = mask(number) if date in OLDER else None
        pixels = image if valid is None else np.maximum(image, 1) * valid[..., None]
        if number >= first:
            write_tiff(folder / f"normal_{date}.tif", pixels, nodata=None if valid is None else 0)
    write_tiff(folder / f"anomaly_{MONITOR_DATE}.tif", SCENE.monitor)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of stage 2's outputs, one folder per stack."""
    root = tmp_path_factory.mktemp("partial")
    for name, mask in STACKS.items():
        write_stack(root / "data" / f"4_{name}", mask)
    write_stack(root / "data" / "4_without_the_oldest", whole_dates, first=1)
    assert run_both_stages(root) == ""
    return root / "stage2"


def run_both_stages(root: Path, **environment: str) -> str:
    """Run both stages; returns the warnings."""
    roots = ("--data-root", root / "data", "--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    done = run_process("run.py", *roots, *DEMO_SAM, **FEW_POINTS, **environment)
    assert done.returncode == 0, done.stderr
    return "\n".join(line for line in done.stderr.splitlines() if line.startswith("warning"))


def maps(results: Path, name: str) -> list[np.ndarray]:
    """The filtered change map and the anomaly map of a stack."""
    folder = results / f"4_{name}"
    return [whole(ScoreMap(folder / file)) for file in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME)]


@pytest.mark.parametrize("name", ["thirds", "blocks", "empty"])
def test_gaps_of_older_dates_leave_no_holes(results: Path, name: str) -> None:
    filtered, anomalies = maps(results, name)
    np.testing.assert_array_equal(filtered, maps(results, "whole")[0])
    assert not np.isnan(anomalies).any()
    np.testing.assert_array_equal(anomalies != 0, maps(results, "whole")[1] != 0)  # the same regions


def test_an_empty_date_changes_nothing(results: Path) -> None:
    np.testing.assert_array_equal(maps(results, "empty")[1], maps(results, "without_the_oldest")[1])


def test_maps_record_the_least_coverage(results: Path) -> None:
    recorded = read_parameters(results / "4_thirds" / config.ANOMALY_MAP_NAME)
    assert recorded is not None
    assert recorded["min_date_coverage"] == 0.5


def test_the_least_coverage_is_a_setting(results: Path, tmp_path: Path) -> None:
    write_stack(tmp_path / "data" / "4_blocks", random_blocks)
    run_both_stages(tmp_path, ANOMALYCD_STAGE2_MIN_DATE_COVERAGE="1")
    strict, usual = maps(tmp_path / "stage2", "blocks")[1], maps(results, "blocks")[1]
    assert not np.isnan(strict).any()
    assert not np.array_equal(strict, usual)
    recorded = read_parameters(tmp_path / "stage2" / "4_blocks" / config.ANOMALY_MAP_NAME)
    assert recorded is not None
    assert recorded["min_date_coverage"] == 1


def test_the_report_shows_the_coverage_of_every_date(results: Path, tmp_path: Path) -> None:
    root = results.parent
    roots = ("--data-root", root / "data", "--stage1-root", root / "stage1", "--result-root", results)
    done = run_process("run_report.py", *roots, "--output", tmp_path, "--event", "4_thirds")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "events" / "4_thirds.html").read_text("utf-8")
    shares = [third(date).mean() for date in range(len(OLDER))] + [1, 1]
    assert re.findall(r"([\d.]+) % with data", page) == [f"{100 * share:.2f}" for share in shares]
