from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import binary_dilation, binary_erosion
from skimage.morphology import closing, disk
from skimage.transform import resize
from sklearn.metrics import precision_score, recall_score

import config
from eval_metrics import (
    Scores,
    average_scores,
    binarize_anomaly_map,
    binarize_by_quantile,
    score_binary_map,
    threshold_curve,
)
from rasters.raster import MemoryRaster, strips
from rasters.resize import resize_nearest
from tests.helpers import property_test, whole
from utils import Window

rates = st.floats(0, 1)


def published_binary(anomalies: np.ndarray, normalize: bool = False) -> np.ndarray:
    return whole(
        binarize_anomaly_map(
            MemoryRaster(anomalies.astype(np.float32)),
            config.EVAL_STAGE2_FIXED_THRESH,
            config.EVAL_AREA_RATIO,
            config.EVAL_CLOSING_SIZE,
            config.EVAL_CLOSING_RADIUS,
            normalize,
        )
    )


def changed(changes: np.ndarray, quantile: float) -> np.ndarray:
    return whole(binarize_by_quantile(MemoryRaster(changes), quantile))


def scored(predicted: np.ndarray, label: np.ndarray, background_weight: float) -> Scores:
    scores = MemoryRaster(np.zeros(predicted.shape, np.float32))  # no NaN: all pixels count
    return score_binary_map(MemoryRaster(predicted), scores, MemoryRaster(label), background_weight)


def published_scores(predicted: Sequence[Sequence[int]], label: Sequence[Sequence[int]]) -> Scores:
    return scored(np.array(predicted, bool), np.array(label), config.EVAL_BACKGROUND_WEIGHT)


@pytest.mark.parametrize(
    ("recall", "precision", "f1"), [(0.5, 1, 2 / 3), (0.6, 0.3, 0.4), (1, 1, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)]
)
def test_f1_is_the_harmonic_mean(recall: float, precision: float, f1: float) -> None:
    scores = Scores.from_rates(recall, precision)
    assert scores == (recall, precision, pytest.approx(f1, abs=1e-12))


@property_test
@given(rates, rates)
def test_f1_lies_in_the_unit_interval(recall: float, precision: float) -> None:
    assert 0 <= Scores.from_rates(recall, precision).f1 <= 1


def test_quantile_binary_map() -> None:
    # 201 values: the quantile 0.945 is the value at index 189; the threshold is inclusive.
    changes = np.arange(201, dtype=np.float32).reshape(3, 67)
    binary = changed(changes, config.EVAL_QUANTILE_THRESH)
    assert binary.dtype == bool
    assert changes[binary].tolist() == list(range(189, 201))


def test_quantile_between_two_values() -> None:
    # Index 0.945 of [0, 1] is 0.945; of [0.95, 1] it is 0.99725.
    assert changed(np.array([[0, 1]], np.float32), 0.945).tolist() == [[False, True]]
    assert changed(np.array([[0.95, 1]], np.float32), 0.945).tolist() == [[False, True]]


def test_zero_quantile_keeps_values_above_zero() -> None:
    changes = np.zeros((10, 10), np.float32)
    changes[0, :2] = 1e-6, 0.5
    binary = changed(changes, config.EVAL_QUANTILE_THRESH)
    assert np.argwhere(binary).tolist() == [[0, 0], [0, 1]]
    assert not changed(np.zeros((3, 3), np.float32), config.EVAL_QUANTILE_THRESH).any()


def test_threshold_is_inclusive() -> None:
    threshold = np.float32(0.08)
    anomalies = np.zeros((512, 512), np.float32)
    anomalies[100:150, 100:150] = threshold
    anomalies[300:350, 300:350] = np.nextafter(threshold, np.float32(0))
    binary = published_binary(anomalies)
    assert binary.dtype == bool
    np.testing.assert_array_equal(binary, anomalies == threshold)


@pytest.mark.parametrize(("gap", "filled"), [(6, True), (7, False)])
@pytest.mark.parametrize("scale", [1, 2])
def test_closing_fills_gaps_narrower_than_the_disk(gap: int, filled: bool, scale: int) -> None:
    # The disk of radius 3 is 7 pixels wide, at 512 x 512: gaps twice as wide are filled in a map of 1024 x 1024.
    anomalies = np.ones((512 * scale, 512 * scale))
    anomalies[:, 200 * scale : (200 + gap) * scale] = 0
    np.testing.assert_array_equal(published_binary(anomalies), np.ones_like(anomalies) if filled else anomalies)


def test_closing_of_a_non_square_map_is_done_on_a_square() -> None:
    gap_across, gap_along = np.ones((2, 512, 1024))
    gap_across[:, 400:412] = 0  # 6 columns at 512 x 512
    gap_along[200:207] = 0
    assert published_binary(gap_across).all()
    np.testing.assert_array_equal(published_binary(gap_along), gap_along)


@pytest.mark.parametrize(("height", "width", "kept"), [(7, 11, False), (6, 13, True)])
def test_components_below_the_area_limit_are_dropped(height: int, width: int, kept: bool) -> None:
    # 512 * 512 * 0.0003 = 78.6: 77 pixels are too few, 78 are enough.
    anomalies = np.zeros((512, 512))
    anomalies[50 : 50 + height, 80 : 80 + width] = 1
    np.testing.assert_array_equal(published_binary(anomalies), anomalies if kept else np.zeros_like(anomalies))


def test_components_are_8_connected() -> None:
    anomalies = np.zeros((10, 10), np.float32)
    anomalies[1, 1] = anomalies[2, 2] = anomalies[3, 1] = 1
    anomalies[7, 7:9] = 1
    binary = binarize_anomaly_map(MemoryRaster(anomalies), 0.5, area_ratio=0.03, closing_size=10, closing_radius=0)
    assert np.argwhere(whole(binary)).tolist() == [[1, 1], [2, 2], [3, 1]]


def test_binary_map_without_anomalies_is_empty() -> None:
    assert not published_binary(np.zeros((40, 60))).any()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.01), (-1, 1), (0.5, 2)])
def test_normalized_map_is_scaled_before_the_threshold(low: float, high: float) -> None:
    ramp = np.tile(np.linspace(low, high, 512), (512, 1))
    # Column i is i / 511 once scaled: 41 / 511 = 0.0802 is the first to reach 0.08.
    binary = published_binary(ramp, normalize=True)
    np.testing.assert_array_equal(binary, np.tile(np.arange(512) >= 41, (512, 1)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0, 0.5, 2])
def test_normalized_constant_map_is_empty(value: float) -> None:
    assert not published_binary(np.full((64, 64), value), normalize=True).any()


def binarized_at_once(
    anomalies: np.ndarray, threshold: float, area_ratio: float, size: int, radius: int, normalize: bool
) -> np.ndarray:
    """The reference for `binarize_anomaly_map`: the same steps, each on the whole map."""
    if normalize:
        low, high = anomalies.min(), anomalies.max()
        anomalies = (anomalies - low) / (high - low if high > low else 1)
    binary = (anomalies >= threshold).astype(np.uint8)
    nearest = {"order": 0, "preserve_range": True, "anti_aliasing": False}
    closed = closing(resize(binary, (size, size), **nearest), disk(radius))
    full = resize(closed, anomalies.shape, **nearest)
    _, components, statistics, _ = cv2.connectedComponentsWithStats(full, connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= int(anomalies.size * area_ratio)
    large[0] = False
    return large[components]


sides = st.one_of(st.integers(1, 40), st.integers(500, 520), st.integers(1, 1500))


@property_test
@given(sides, sides, st.integers(1, 60), st.sampled_from([0, 1e-5, 0.0003, 0.004, 0.05]), st.booleans())
def test_binarization_in_strips_equals_that_of_the_whole_map(
    height: int, width: int, blob: int, area_ratio: float, normalize: bool
) -> None:
    rng = np.random.default_rng((height, width, blob))
    coarse = rng.random((height // blob + 1, width // blob + 1), dtype=np.float32) - np.float32(0.3)
    anomalies = coarse.repeat(blob, axis=0).repeat(blob, axis=1)[:height, :width]
    anomalies[rng.random(anomalies.shape) < 0.01] = 1
    arguments = (0.35, area_ratio, config.EVAL_CLOSING_SIZE, config.EVAL_CLOSING_RADIUS, normalize)
    binary = binarize_anomaly_map(MemoryRaster(anomalies), *arguments)
    expected = binarized_at_once(anomalies, *arguments)
    assert binary.shape == expected.shape
    np.testing.assert_array_equal(whole(binary), expected)
    x, y = width // 3, height // 4
    window = Window(x, y, width - x, (height - y + 1) // 2)
    np.testing.assert_array_equal(binary.read(window), expected[window.slices])


def test_maps_of_several_strips() -> None:
    changes = np.random.default_rng(0).random((700, 20_000), dtype=np.float32)
    raster = MemoryRaster(changes)
    assert len(list(strips(changes.shape))) == 3
    np.testing.assert_array_equal(changed(changes, 0.9), changes >= np.quantile(changes, 0.9))
    np.testing.assert_array_equal(
        resize_nearest(raster, (50, 60)),
        resize(changes, (50, 60), order=0, preserve_range=True, anti_aliasing=False),
    )
    changes[600] = 3  # only one strip has the largest value
    changes[100] = -1
    arguments = (0.4, 0.0003, 512, 3, True)
    np.testing.assert_array_equal(
        whole(binarize_anomaly_map(raster, *arguments)), binarized_at_once(changes, *arguments)
    )
    label = np.where(changes > 0.5, 2, 1)
    assert scored(changes > 0.2, label, 0.1) == scored((changes > 0.2).T, label.T, 0.1)


@property_test
@given(st.integers(1, 24).flatmap(lambda side: arrays(bool, (side, side))), st.integers(0, 3))
def test_closing_is_dilation_followed_by_erosion(binary: np.ndarray, radius: int) -> None:
    closed = binarize_anomaly_map(
        MemoryRaster(binary.astype(np.float32)), 0.5, area_ratio=0, closing_size=len(binary), closing_radius=radius
    )
    expected = binary_erosion(binary_dilation(binary, disk(radius)), disk(radius), border_value=1)
    np.testing.assert_array_equal(whole(closed), expected)


def test_resize_takes_the_nearest_pixel_centre() -> None:
    # The centres of 3 pixels in 5 lie at 0.33, 2 and 3.67.
    assert resize_nearest(MemoryRaster(np.arange(5)[None]), (1, 3)).tolist() == [[0, 2, 4]]
    # And of 5 in 3 at -0.2, 0.4, 1, 1.6 and 2.2.
    assert resize_nearest(MemoryRaster(np.arange(3)[:, None]), (5, 1)).ravel().tolist() == [0, 0, 1, 2, 2]


@property_test
@given(
    array_shapes(min_dims=2, max_dims=2, max_side=40),
    array_shapes(min_dims=2, max_dims=2, max_side=40),
    st.sampled_from([np.uint8, np.int32, np.float32]),
)
def test_resize_equals_that_of_scikit_image(old: tuple[int, int], new: tuple[int, int], dtype: type) -> None:
    image: np.ndarray = np.random.default_rng(old).integers(0, 256, old).astype(dtype)
    resized = resize_nearest(MemoryRaster(image), new)
    np.testing.assert_array_equal(resized, resize(image, new, order=0, preserve_range=True, anti_aliasing=False))
    assert resized.dtype == dtype


def test_false_positives_have_weight_a_tenth() -> None:
    scores = published_scores([[1, 1, 0, 0, 1, 1, 1, 0]], [[2, 3, 4, 2, 0, 0, 0, 0]])
    # 2 of 4 anomalous pixels; 2 / (2 + 0.1 * 3) = 20 / 23; F1 = 2 * 10 / 23 / (63 / 46) = 40 / 63.
    assert scores == pytest.approx((0.5, 20 / 23, 40 / 63), abs=1e-12)


def test_label_value_one_is_background() -> None:
    scores = published_scores([[1, 1, 0, 0]], [[1, 2, 1, 0]])
    assert scores == pytest.approx((1, 10 / 11, 20 / 21), abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "label"),
    [
        ([[0, 0]], [[0, 2]]),  # no prediction
        ([[1, 1]], [[0, 1]]),  # no anomaly
        ([[0, 0]], [[0, 1]]),
        ([[1, 0]], [[0, 2]]),  # no true positive
    ],
)
def test_scores_without_true_positives_are_zero(predicted: list[list[int]], label: list[list[int]]) -> None:
    assert published_scores(predicted, label) == (0, 0, 0)


def test_scores_are_zero_with_zero_background_weight() -> None:
    assert scored(np.array([[True]]), np.array([[0]]), 0) == (0, 0, 0)


@property_test
@given(array_shapes(min_dims=2, max_dims=2, max_side=12), st.data())
def test_rates_equal_those_of_scikit_learn(shape: tuple[int, int], data: st.DataObject) -> None:
    predicted = data.draw(arrays(bool, shape))
    label = data.draw(arrays(np.int32, shape, elements=st.integers(0, 3)))
    truth = label.ravel() > 1
    weights = np.where(truth, 1, 0.1)
    scores = scored(predicted, label, 0.1)
    assert scores.recall == pytest.approx(
        recall_score(truth, predicted.ravel(), sample_weight=weights, zero_division=0)
    )
    assert scores.precision == pytest.approx(
        precision_score(truth, predicted.ravel(), sample_weight=weights, zero_division=0)
    )
    assert all(0 <= score <= 1 for score in scores)


def test_average_f1_is_computed_from_the_average_rates() -> None:
    scores = [Scores.from_rates(1, 0.5), Scores.from_rates(0, 1)]
    # 2 * 0.5 * 0.75 / 1.25; the mean of the two F1 would be 1 / 3.
    assert average_scores(scores) == pytest.approx((0.5, 0.75, 0.6), abs=1e-12)


def test_average_of_one_event_is_its_scores() -> None:
    assert average_scores([Scores.from_rates(0.6, 0.3)]) == pytest.approx((0.6, 0.3, 0.4), abs=1e-12)


# --- Pixels without data ---------------------------------------------------------------------------------------------
def test_pixels_without_data_are_left_out_of_the_scores() -> None:
    scores = np.array([[0.5, np.nan, 0.5, 0.1], [0.5, np.nan, 0.1, 0.1]], np.float32)
    label = np.array([[2, 2, 0, 3], [2, 0, 0, 0]])
    found = score_binary_map(
        MemoryRaster(np.nan_to_num(scores, nan=1) > 0.2), MemoryRaster(scores), MemoryRaster(label), 0.1
    )
    assert found == pytest.approx(Scores.from_rates(2 / 3, 2 / 2.1))


def test_pixels_without_data_are_excluded_from_the_quantile_and_never_set() -> None:
    changes = np.array([[0.1, np.nan, 0.2, 0.3], [np.nan, 0.4, 0.5, np.nan]], np.float32)
    np.testing.assert_array_equal(changed(changes, 0.5), np.nan_to_num(changes) >= np.float32(0.3))


def test_closing_does_not_set_pixels_without_data() -> None:
    anomalies = np.full((512, 512), 0.5, np.float32)
    anomalies[100, 100] = np.nan  # would be closed if it had data
    expected = np.ones((512, 512), bool)
    expected[100, 100] = False
    np.testing.assert_array_equal(published_binary(anomalies), expected)
    np.testing.assert_array_equal(published_binary(anomalies * 0.1, normalize=True), np.zeros((512, 512)))


def test_normalization_ignores_pixels_without_data() -> None:
    anomalies = np.zeros((512, 512), np.float32)
    anomalies[:256] = 0.02
    anomalies[300:] = np.nan
    np.testing.assert_array_equal(published_binary(anomalies, normalize=True)[:300], anomalies[:300] > 0)


# --- Many thresholds -------------------------------------------------------------------------------------------------
@property_test
@given(
    st.tuples(st.integers(3, 40), st.integers(3, 40)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.002, 0.05]),
    st.booleans(),
)
def test_threshold_curve_equals_single_thresholds(
    shape: tuple[int, int], seed: int, area_ratio: float, normalize: bool
) -> None:
    rng = np.random.default_rng(seed)
    anomalies = rng.choice(np.array([0, 0.05, 0.1, 0.4, 1, np.nan], np.float32), shape)
    scores, label = MemoryRaster(anomalies), MemoryRaster(rng.integers(0, 4, shape))
    thresholds = [0.0, 0.05, 0.07, 0.3, 0.9, 2.0]
    settings = (area_ratio, 16, 1)
    curve = threshold_curve(scores, label, thresholds, *settings, normalize)
    for threshold, found in zip(thresholds, curve.scores(0.1), strict=True):
        binary = binarize_anomaly_map(scores, threshold, *settings, normalize)
        assert found == pytest.approx(score_binary_map(binary, scores, label, 0.1), abs=1e-12)
