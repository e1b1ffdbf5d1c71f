"""Objects of labels and maps, counted by hand and by scikit-image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label as label_components
from sklearn.metrics import average_precision_score

from eval_metrics import Scores
from evaluation.objects import (
    ObjectCounts,
    ObjectScores,
    average_object_scores,
    average_precision,
    count_objects,
)
from rasters.raster import MemoryRaster
from tests.helpers import property_test

SCORED = np.zeros((6, 8), np.float32)


def drawn(*rows: str) -> np.ndarray:
    """A map of 6 x 8 pixels from its rows: # is set; missing rows and columns are not."""
    pixels = np.zeros((6, 8), bool)
    for y, row in enumerate(rows):
        for x, character in enumerate(row):
            pixels[y, x] = character == "#"
    return pixels


def count(predicted: np.ndarray, label: np.ndarray, share: float, scores: np.ndarray = SCORED) -> tuple[int, ...]:
    rasters = (MemoryRaster(predicted), MemoryRaster(scores), MemoryRaster(np.where(label, 255, 1).astype(np.uint8)))
    return count_objects(*rasters, share, None)[:4]


# Two labelled objects of 4 and 1 pixels; the first touches its lower part at a corner.
LABEL = drawn("##......", "##......", "........", ".......#")
# Three flagged objects: one covers 1 of 4 pixels, and 1 of its own 5 lies on the label; two lie beside it.
FLAGGED = drawn("........", ".#......", "..##....", "..##....", "........", "#.....#.")


def test_objects_are_found_and_right_from_a_share_on() -> None:
    assert count(FLAGGED, LABEL, 0.2) == (2, 1, 3, 1)
    assert count(FLAGGED, LABEL, 0.21) == (2, 1, 3, 0)
    assert count(FLAGGED, LABEL, 0.26) == (2, 0, 3, 0)
    assert count(FLAGGED, LABEL, 0) == (2, 1, 3, 1)  # not without a single pixel
    assert count(LABEL, LABEL, 1) == (2, 2, 2, 2)


def test_pixels_without_data_belong_to_no_object() -> None:
    scores = SCORED.copy()
    scores[3, 7] = np.nan  # the whole second object
    scores[0] = np.nan  # half of the first one, so that 1 of 2 pixels is covered
    assert count(FLAGGED, LABEL, 0.5, scores) == (1, 1, 3, 0)
    scores[2, 2:4] = scores[3, 2] = np.nan  # separates the flagged pixel on the label from the others
    assert count(FLAGGED, LABEL, 0.5, scores) == (1, 1, 4, 1)


def test_false_alarms_per_area() -> None:
    rasters = (MemoryRaster(FLAGGED), MemoryRaster(SCORED))
    counts = count_objects(*rasters, MemoryRaster(np.where(LABEL, 2, 0).astype(np.uint8)), 0.2, pixel_area=2500.0)
    assert counts.square_metres == 48 * 2500
    assert counts.false_alarms == 2
    assert counts.false_alarms_per_km2 == pytest.approx(2 / 0.12)
    assert counts.scores == Scores.from_rates(1 / 2, 1 / 3)
    control = count_objects(*rasters, None, 1, pixel_area=None)
    assert control == ObjectCounts(0, 0, 3, 0, None)
    assert control.scores == Scores(0, 0, 0)
    assert control.false_alarms_per_km2 is None


@property_test
@given(st.integers(0, 2**32), st.floats(0.05, 0.6), st.integers(1, 40))
def test_strips_do_not_cut_objects(seed: int, density: float, strip: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, anomalous = rng.random((2, 40, 9)) < density
    scores = np.where(rng.random((40, 9)) < 0.1, np.nan, np.float32(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rasters.raster.STRIP_BYTES", 4 * 9 * strip)
        patch.setattr("rasters.raster.STRIP_ROWS", 1)
        found = count(predicted, anomalous, 0.3, scores)
    expected: list[int] = []
    predicted, anomalous = predicted & ~np.isnan(scores), anomalous & ~np.isnan(scores)
    for objects, covering in ((anomalous, predicted), (predicted, anomalous)):
        numbers = label_components(objects, connectivity=2)
        shares = [covering[numbers == number].mean() for number in range(1, numbers.max() + 1)]
        expected += [len(shares), sum(share >= 0.3 for share in shares)]
    assert list(found) == expected


def test_average_precision_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.random(500) < 0.3, rng.integers(0, 20, 500) / 20
    curve = []
    for threshold in np.arange(20) / 20:
        flagged = scores >= threshold
        right = np.count_nonzero(flagged & truth)
        curve.append(Scores.from_rates(right / truth.sum(), right / flagged.sum() if flagged.any() else 0.0))
    assert average_precision(curve) == pytest.approx(average_precision_score(truth, scores))


def test_events_are_summed_and_averaged() -> None:
    one = ObjectScores(ObjectCounts(2, 1, 4, 3, 1e6), Scores.from_rates(0.5, 0.5), 0.4)
    other = ObjectScores(ObjectCounts(3, 3, 1, 0, 1e6), Scores.from_rates(1.0, 0.1), 0.8)
    both = average_object_scores([one, other])
    assert both.objects == ObjectCounts(5, 4, 5, 3, 2e6)
    assert both.objects.false_alarms_per_km2 == 1
    assert both.unweighted == Scores.from_rates(0.75, 0.3)
    assert both.average_precision == pytest.approx(0.6)
    unknown = other._replace(objects=other.objects._replace(square_metres=None), average_precision=None)
    both = average_object_scores([unknown, unknown])
    assert both.objects.false_alarms_per_km2 is None
    assert both.average_precision is None
