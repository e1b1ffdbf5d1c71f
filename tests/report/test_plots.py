"""Plots of degenerate results and of many events."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from eval_metrics import Scores
from evaluation.curves import BIN_EDGES, EventCurves, ScoreHistogram
from evaluation.event_maps import EvalSettings, curve_thresholds
from evaluation.tables import Result
from report import plots as eval_plots
from tests.report.test_figures import png_size
from utils import CATEGORIES, Event

pytestmark = pytest.mark.slow

NOTHING = Scores(0, 0, 0)


def result(category: int, scores: Scores) -> Result:
    return Result(Event(Path(f"{category}_event"), Path("monitor"), (Path("reference"),), None), scores, scores)


def curves_of(scores: Scores, threshold: float, pixels: int) -> EventCurves:
    counts = np.zeros(len(BIN_EDGES) - 1, np.int64)
    counts[0] = pixels
    return EventCurves([scores] * len(curve_thresholds(threshold)), ScoreHistogram(counts, counts))


@pytest.mark.parametrize(
    ("threshold", "scores"), [(0, Scores(1, 1, 1)), (0.08, NOTHING), (1.5, NOTHING), (-1, Scores(1, 1, 1))]
)
def test_plots_of_degenerate_results_are_drawn(tmp_path: Path, threshold: float, scores: Scores) -> None:
    settings = EvalSettings(stage2_threshold=threshold, normalize_anomaly_map=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves = [curves_of(scores, threshold, pixels=0)]
        eval_plots.draw_all(tmp_path, [result(6, scores)], curves, settings)
    assert {path.name for path in tmp_path.iterdir()} == set(eval_plots.FILE_NAMES)


def test_plots_of_many_events_fit_a_page(tmp_path: Path) -> None:
    results = [result(category, Scores(0.5, 0.5, 0.5)) for category in CATEGORIES if category for _ in range(5)]
    curves = [curves_of(Scores(0.5, 0.5, 0.5), 0.08, pixels=10)] * len(results)
    eval_plots.draw_all(tmp_path, results, curves, EvalSettings())
    for name in eval_plots.FILE_NAMES:
        width, _, dpi = png_size(tmp_path / name)
        assert width / dpi * 25.4 < 200  # millimetres: fits a page
