"""The data of the evaluation's plots, on maps small enough to count by hand."""

from pathlib import Path

import numpy as np
import pytest

import config
from eval_metrics import Scores
from evaluation.curves import (
    BIN_EDGES,
    average_curve,
    event_curves,
    found_points,
    mean_shares,
    score_histogram,
)
from evaluation.event_maps import EvalSettings, EventMaps, curve_thresholds, open_event_maps, recorded_options
from img_io import ImageOptions
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from rasters.maps import read_parameters
from tests.scripts import FIRE
from utils import EventError, read_event

NAN = np.float32(np.nan)


def maps_of(root: Path, scores: np.ndarray, label: np.ndarray, settings: EvalSettings) -> EventMaps:
    """Write an event with black images, and open its maps."""
    folder = root / "data" / "6_event"
    rgb = np.zeros((*label.shape, 3), np.uint8)
    for name, values in (("normal_1", rgb), ("anomaly_2", rgb), ("anomaly_2_label", label)):
        write_raster(folder / f"{name}.tif", values, Georeference())
    for name in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME):
        write_raster(root / "results" / folder.name / name, scores.astype(np.float32), Georeference())
    return open_event_maps(read_event(folder), root / "results", settings)


@pytest.fixture
def quarters(tmp_path: Path) -> EventMaps:
    """Rows 0-9: anomaly scored 0.5; 10-19: anomaly without data; 20-29: value 1 scored 0.5; 30-79: scored 0."""
    scores, label = np.zeros((80, 80), np.float32), np.zeros((80, 80), np.uint8)
    scores[:30], scores[10:20] = 0.5, NAN
    label[:20], label[20:30] = 2, 1
    return maps_of(tmp_path, scores, label, EvalSettings(area_ratio=0))


def test_histograms_count_pixels_with_data_inside_and_outside_the_label(quarters: EventMaps) -> None:
    inside, outside = score_histogram(quarters)
    middle = int(np.searchsorted(BIN_EDGES, 0.5 + 1e-6)) - 1  # the bin of 0.5
    assert {bin_: int(inside[bin_]) for bin_ in np.flatnonzero(inside)} == {middle: 800}
    assert {bin_: int(outside[bin_]) for bin_ in np.flatnonzero(outside)} == {0: 4000, middle: 800}


def test_scores_beyond_the_histogram_count_in_its_first_and_last_bin(tmp_path: Path) -> None:
    scores = np.full((64, 64), -1e-7)
    scores[:10] = 1.7
    inside, outside = score_histogram(maps_of(tmp_path, scores, np.zeros((64, 64), np.uint8), EvalSettings()))
    assert not inside.any()
    assert (outside[0], outside[-1], outside.sum()) == (54 * 64, 640, 64 * 64)


def test_histograms_of_normalized_maps_scale_the_scores(tmp_path: Path) -> None:
    scores = np.full((64, 64), 0.1)
    scores[:10] = 0.3
    settings = EvalSettings(normalize_anomaly_map=True)
    _, outside = score_histogram(maps_of(tmp_path, scores, np.zeros((64, 64), np.uint8), settings))
    assert (outside[0], outside[-1]) == (54 * 64, 640)


def test_curves_of_an_event(quarters: EventMaps) -> None:
    curve = event_curves(quarters).precision_recall
    at_0, at_03, at_06 = (
        curve[curve_thresholds(quarters.settings.stage2_threshold).index(step)] for step in (0, 0.296, 0.6)
    )
    # 800 anomalous pixels have data. At 0 all 5600 with data are flagged: 800 / (800 + 0.1 * 4800).
    assert at_0.recall == 1
    assert at_0.precision == pytest.approx(800 / 1280)
    # At 0.296: rows 0-9 and 20-29; pixels added by the closing at their borders have no data: 800 / (800 + 80).
    assert at_03.recall == 1
    assert at_03.precision == pytest.approx(800 / 880, abs=0.01)
    assert at_06 == Scores(0, 0, 0)


def test_curves_equal_the_scores_of_the_evaluation(quarters: EventMaps) -> None:
    thresholds = curve_thresholds(0.0801)
    assert thresholds == sorted(thresholds)
    at = thresholds.index(0.0801)
    maps = EventMaps(quarters.filtered, quarters.anomalies, quarters.label, EvalSettings(stage2_threshold=0.0801))
    assert event_curves(maps).precision_recall[at] == maps.scores()[1]


def test_thresholds_are_unique_and_range_from_0_to_1() -> None:
    assert curve_thresholds(0.08) == curve_thresholds(0.2)
    assert (curve_thresholds(0.08)[0], curve_thresholds(0.08)[-1], len(curve_thresholds(0.08))) == (0, 1, 101)


def test_average_curve_is_computed_from_mean_recall_and_mean_precision() -> None:
    curves = [[Scores(1, 0.5, 0), Scores(0.2, 1, 0)], [Scores(0.5, 0.5, 0), Scores(0, 0, 0)]]
    first, second = average_curve(curves)
    assert first == pytest.approx((0.75, 0.5, 0.6))
    assert second == pytest.approx((0.1, 0.5, 2 * 0.1 * 0.5 / 0.6))


def test_points_without_true_positives_are_left_out_of_the_curve() -> None:
    curve = [Scores(1, 0.5, 0), Scores(0.2, 1, 0), Scores(0, 0, 0)]
    np.testing.assert_array_equal(found_points(curve), [[1, 0.5], [0.2, 1]])
    assert found_points([Scores(0, 0, 0)]).shape == (0, 2)


def test_events_have_equal_weight_in_the_mean_histogram() -> None:
    shares = mean_shares([np.array([1, 3]), np.array([0, 0]), np.array([100, 0])])
    assert shares is not None
    np.testing.assert_allclose(shares, [0.625, 0.375])  # of (0.25, 0.75) and (1, 0)
    assert mean_shares([np.array([0, 0])]) is None


def test_maps_of_another_size_are_refused(quarters: EventMaps, tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_raster(results / "6_event" / config.FILTERED_MAP_NAME, np.zeros((70, 70), np.float32), Georeference())
    with pytest.raises(EventError, match="sizes differ"):
        open_event_maps(read_event(tmp_path / "data" / "6_event"), results, EvalSettings())


def test_image_options_are_read_from_the_maps(finished: Path) -> None:
    assert recorded_options({}) == ImageOptions()
    made_with = read_parameters(finished / "stage2" / FIRE / config.ANOMALY_MAP_NAME)
    assert made_with is not None
    assert recorded_options(made_with) == ImageOptions()
    tags = {"bands": [3, 2, 1], "stretch": ["minmax", 0.0, 4000.0], "align_shift": 5.0}
    assert recorded_options(tags) == ImageOptions("minmax", (3, 2, 1), 5.0)
