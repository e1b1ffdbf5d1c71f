"""F1 over the number of historical dates, from an explanation map and from runs with fewer dates."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import config
from benchmarks.bench_dates import (
    Separation,
    draw,
    f1_by_dates,
    latest_scores,
    measure_event,
    separation,
    spread_by_dates,
)
from demo.make_events import HISTORICAL_DATES, DemoEvent, write_event
from evaluation.event_maps import EvalSettings, open_event_maps
from evaluation.explanations import ExplanationMap
from rasters.maps import ScoreMap
from tests.helpers import whole
from tests.report.test_figures import png_size
from tests.scripts import DEMO_SAM, FEW_POINTS, run_process
from utils import read_event

SMALL_REGIONS = {"ANOMALYCD_STAGE1_MIN_MASK_PIXELS": "300", "ANOMALYCD_STAGE2_MIN_MASK_PIXELS": "150"}


def run_stages(data: Path, stage1: Path, stage2: Path, *flags: str) -> None:
    roots = ("--data-root", data, "--stage1-root", stage1, "--stage2-root", stage2)
    done = run_process("run.py", *roots, *flags, *DEMO_SAM, **FEW_POINTS, **SMALL_REGIONS)
    assert done.returncode == 0, done.stderr


def test_scores_of_fewer_dates_equal_a_run_with_them(tmp_path: Path) -> None:
    event = read_event(write_event(tmp_path / "data", DemoEvent("4_fire", 21), 256))
    run_stages(tmp_path / "data", tmp_path / "1", tmp_path / "all", "--explain")
    shutil.copytree(tmp_path / "data", tmp_path / "fewer")
    for date in HISTORICAL_DATES[:-2]:
        (tmp_path / "fewer" / event.name / f"normal_{date}.tif").unlink()
    run_stages(tmp_path / "fewer", tmp_path / "1", tmp_path / "latest", "--stage", "2")
    explanation = whole(ExplanationMap(tmp_path / "all" / event.name / config.EXPLANATION_NAME))
    found = {}
    for dates, root in ((4, tmp_path / "all"), (2, tmp_path / "latest")):
        anomalies = whole(ScoreMap(root / event.name / config.ANOMALY_MAP_NAME))
        np.testing.assert_allclose(latest_scores(explanation, dates), anomalies, atol=1e-6)
        maps = open_event_maps(event, root, EvalSettings())
        assert maps.label is not None
        assert f1_by_dates(explanation, whole(maps.label), EvalSettings())[dates - 1] == maps.scores()[1].f1
        found[dates] = anomalies
    assert (found[2] > found[4] + 0.01).any()
    f1_rows, regions = measure_event(event, tmp_path / "all" / event.name)
    assert [row["dates"] for row in f1_rows] == ["1", "2", "3", "4"]
    assert {row["threshold"] for row in regions} == {"0.08", "0.02"}


def test_events_and_maps_of_a_folder_are_used_again(tmp_path: Path) -> None:
    results, regions, folder = tmp_path / "results.csv", tmp_path / "regions.csv", tmp_path / "kept"
    flags = ("--events", 1, "--size", 256, "--model", "vit_demo", "--results", results, "--regions", regions)
    written = []
    for _ in range(2):
        done = run_process("-mbenchmarks.bench_dates", *flags, "--folder", folder, **FEW_POINTS, **SMALL_REGIONS)
        assert done.returncode == 0, done.stderr
        written.append([path.stat().st_mtime_ns for path in sorted(folder.rglob("*.tif"))])
    assert written[0] == written[1]
    rows = results.read_text().splitlines()[1:]
    assert len(rows) == 2 * 8
    assert rows[:8] == rows[8:]


def test_the_latest_dates_of_an_explanation() -> None:
    outside, inside, partly = [0, 0, 0, 0], [0.9, 0.5, 0.75, 0.4], [0.2, 0.5, -1, 0.1]
    explanation = np.array([[outside, inside, partly]], np.float32)
    np.testing.assert_allclose(latest_scores(explanation, 1), [[0, 0.25, 2]])
    np.testing.assert_allclose(latest_scores(explanation, 2), [[0, 0.25, 0.5]])
    np.testing.assert_allclose(latest_scores(explanation, 3), [[0, 0.1, 0.5]], rtol=1e-6)
    assert latest_scores(explanation, 3).dtype == np.float32


def test_mean_and_quartiles_of_f1(tmp_path: Path) -> None:
    rows = [{"dates": "2", "F1": f1} for f1 in ("0.0", "0.2", "0.4", "0.6", "0.8")]
    rows += [{"dates": "1", "F1": "0.5"}]
    first, second = spread_by_dates(rows)
    assert first == (1, 0.5, (0.5, 0.5, 0.5))
    assert second.mean == pytest.approx(0.4)
    assert second.quartiles == pytest.approx((0.2, 0.4, 0.6))
    draw(tmp_path / "dates.png", [first, second], 5)
    assert png_size(tmp_path / "dates.png")[0] == pytest.approx(90 / 25.4 * 300, abs=1)


def region(share: float, score: float, usual: float) -> dict[str, str]:
    return {"share in label": str(share), "mean score": str(score), "usual score": str(usual)}


def test_separation_of_true_and_false_regions() -> None:
    rows = [region(0.5, 0.4, 0.1), region(0.9, 0.2, 0.1), region(0.49, 0.3, 0.25), region(0, 0.1, 0.1)]
    # Of the four pairs, the mean score orders three, the novelty all.
    assert separation(rows) == Separation(true=2, false=2, by_mean_score=0.75, by_novelty=1)
    assert np.isnan(separation(rows[:2]).by_novelty)
