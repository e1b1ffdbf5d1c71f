from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import config
from sam.features import WindowFeatures, region_means
from sam.masks import Mask
from stage1_analysis import change_map, change_scores
from tests.helpers import SIZE, encoded_window, feature_values, first_rows, property_test, quadrants

EAST, NORTH = (1, 0), (0, 1)  # orthogonal: a score of 1
# Between these two, the upper half is unchanged (score 0) and the lower half changed (score 1). A mask that covers
# equal parts of both has the score HALF: the cosine of (1, 0) and (0.5, 0.5) is 1 / sqrt(2).
REFERENCE = quadrants(EAST)
MONITOR = quadrants(EAST, EAST, NORTH, NORTH)
HALF = 0.29289322
UPPER, UNCHANGED, LEFT = first_rows(5000), first_rows(3000), first_rows(5000).T


def published_map(
    reference: WindowFeatures,
    monitor: WindowFeatures,
    reference_masks: Sequence[np.ndarray],
    monitor_masks: Sequence[np.ndarray] = (),
) -> np.ndarray:
    return change_map(
        reference,
        monitor,
        [Mask.of(mask) for mask in reference_masks],
        [Mask.of(mask) for mask in monitor_masks],
        config.STAGE1_MIN_MASK_PIXELS,
        config.MAX_REGION_FRACTION,
    )


@pytest.mark.parametrize(
    ("reference", "monitor", "score"),
    [
        ((1, 0), (3, 4), 0.4),  # 1 - 3 / 5
        ((1, 2, 2), (2, 3, 6), 1 / 21),  # 1 - 20 / (3 * 7)
        ((5, 0), (0, 0.1), 1),
        ((2, 1), (4, 2), 0),
    ],
)
def test_score_is_one_minus_the_cosine(reference: Sequence[float], monitor: Sequence[float], score: float) -> None:
    (found,) = change_scores(np.array([reference], float), np.array([monitor], float))
    assert found == pytest.approx(score, abs=1e-8)


def test_epsilon_is_added_to_the_norms() -> None:
    # The product of the norms is 1e-8, and so is r.m: 1 - 1 / 2; then 3e-8: 1 - 3 / 4.
    scores = change_scores(np.array([[1e-4, 0], [1e-4, 0]]), np.array([[1e-4, 0], [3e-4, 0]]))
    np.testing.assert_allclose(scores, [0.5, 0.25], rtol=1e-12)


def test_zero_vectors_score_one() -> None:
    zero, vector = np.zeros((1, 2)), np.ones((1, 2))
    assert [float(change_scores(*pair)[0]) for pair in [(zero, vector), (vector, zero), (zero, zero)]] == [1, 1, 1]


def test_opposite_vectors_are_clipped_to_one() -> None:
    assert change_scores(np.array([[1.0, 2.0]]), np.array([[-1.0, -2.0]])).tolist() == [1]


def test_rounding_is_clipped_to_zero() -> None:
    # Large enough for the epsilon to vanish: without clipping, about a fifth of these would be negative.
    vectors = np.random.default_rng(0).normal(scale=1e6, size=(1000, 3))
    assert change_scores(vectors, vectors).min() == 0


def test_mask_means_weight_cells_by_pixels() -> None:
    mask = first_rows(6000)  # 5000 pixels (1, 0), 1000 pixels (0, 1): the mean is (5, 1) / 6
    expected = np.where(mask, 1 - 5 / 26**0.5, 0)
    np.testing.assert_allclose(published_map(REFERENCE, MONITOR, [mask]), expected, atol=1e-6)


def test_map_is_float32_of_the_window_size() -> None:
    window = encoded_window(np.ones((1, 4, 4)), (60, 110))
    changes = published_map(window, window, [np.arange(6600).reshape(60, 110) < 3300])
    assert changes.dtype == np.float32
    assert changes.shape == (60, 110)


@pytest.mark.parametrize("order", [1, -1])
def test_smaller_mask_overwrites_larger_one(order: int) -> None:
    changes = published_map(REFERENCE, MONITOR, [LEFT, UNCHANGED][::order])
    np.testing.assert_allclose(changes, np.where(LEFT & ~UNCHANGED, HALF, 0), atol=1e-6)


def test_later_of_equally_large_masks_overwrites() -> None:
    upper_last = published_map(REFERENCE, MONITOR, [LEFT, UPPER])
    left_last = published_map(REFERENCE, MONITOR, [UPPER, LEFT])
    np.testing.assert_allclose(upper_last, np.where(LEFT & ~UPPER, HALF, 0), atol=1e-6)
    np.testing.assert_allclose(left_last, np.where(LEFT, HALF, 0), atol=1e-6)


@pytest.mark.parametrize(("pixels", "kept"), [(2999, False), (3000, True), (9000, True), (9001, False)])
def test_area_limits(pixels: int, kept: bool) -> None:
    changes = published_map(quadrants(EAST), quadrants(NORTH), [first_rows(pixels)])
    np.testing.assert_array_equal(changes, first_rows(pixels) if kept else np.zeros(SIZE))


def test_dropped_masks_do_not_overwrite() -> None:
    changes = published_map(REFERENCE, MONITOR, [LEFT, first_rows(2999)])
    np.testing.assert_allclose(changes, np.where(LEFT, HALF, 0), atol=1e-6)


def test_maximum_of_both_mask_sets() -> None:
    lower = ~UPPER
    expected = np.where(lower, 1, np.where(LEFT, HALF, 0))
    np.testing.assert_allclose(published_map(REFERENCE, MONITOR, [LEFT], [lower]), expected, atol=1e-6)
    np.testing.assert_allclose(published_map(REFERENCE, MONITOR, [lower], [LEFT]), expected, atol=1e-6)
    # One set's smaller mask does not overwrite the other set's larger one.
    np.testing.assert_allclose(
        published_map(REFERENCE, MONITOR, [LEFT], [UNCHANGED]), np.where(LEFT, HALF, 0), atol=1e-6
    )


def test_image_without_masks_contributes_zeros() -> None:
    expected = np.where(LEFT, HALF, 0)
    np.testing.assert_allclose(published_map(REFERENCE, MONITOR, [LEFT], []), expected, atol=1e-6)
    np.testing.assert_allclose(published_map(REFERENCE, MONITOR, [], [LEFT]), expected, atol=1e-6)


def test_no_masks_in_either_image_give_zeros() -> None:
    changes = published_map(REFERENCE, MONITOR, [], [])
    np.testing.assert_array_equal(changes, np.zeros(SIZE))
    assert changes.dtype == np.float32


@property_test
@given(arrays(np.float64, (2, 4, 3), elements=feature_values))
def test_scores_lie_in_the_unit_interval(means: np.ndarray) -> None:
    scores = change_scores(*means)
    assert np.all((scores >= 0) & (scores <= 1))


def test_a_mask_is_painted_at_its_box() -> None:
    mask = Mask.of(np.array([[True, True, False], [True, False, True]]), x=60, y=80)  # in the lower right, changed
    changes = change_map(REFERENCE, MONITOR, [mask], [], min_mask_pixels=1, max_region_fraction=1)
    expected = np.zeros(SIZE)
    expected[80, 60:62] = expected[81, [60, 62]] = 1
    np.testing.assert_allclose(changes, expected, atol=1e-6)


@property_test
@given(
    arrays(np.float32, (2, 2, 3, 3), elements=feature_values),
    st.lists(arrays(bool, (4, 6)).filter(np.any), max_size=4),
    st.lists(arrays(bool, (4, 6)).filter(np.any), max_size=4),
)
def test_pixels_have_the_score_of_their_smallest_mask(
    features: np.ndarray, reference_masks: list[np.ndarray], monitor_masks: list[np.ndarray]
) -> None:
    reference, monitor = (encoded_window(of_image, (4, 6)) for of_image in features)

    def score(mask: np.ndarray) -> float:
        means = region_means(reference.mask_counts([Mask.of(mask)]), [reference, monitor])
        return float(change_scores(*means)[0])

    expected = np.zeros((4, 6))
    for masks in (reference_masks, monitor_masks):
        for pixel in np.ndindex(4, 6):
            covering = [mask for mask in masks[::-1] if mask[pixel]]
            if covering:
                smallest = min(covering, key=np.count_nonzero)  # among equals the first, which is painted last
                expected[pixel] = max(float(expected[pixel]), score(smallest))
    of_reference, of_monitor = ([Mask.of(mask) for mask in masks] for masks in (reference_masks, monitor_masks))
    changes = change_map(reference, monitor, of_reference, of_monitor, min_mask_pixels=1, max_region_fraction=1)
    np.testing.assert_allclose(changes, expected, atol=1e-6)


# --- Pixels without data ---------------------------------------------------------------------------------------------
def test_pixels_without_data_are_excluded_from_regions_and_scores() -> None:
    valid = np.ones(SIZE, bool)
    valid[50:60] = False  # all 1000 changed pixels of the mask
    changes = change_map(REFERENCE, MONITOR, [Mask.of(first_rows(6000))], [], 3000, 0.9, valid)
    assert np.isnan(changes[50:60]).all()
    assert np.abs(changes[valid]).max() < 1e-6  # 5 / 26 ** 0.5 with them


@pytest.mark.parametrize(("gap", "kept"), [(2000, True), (2001, False)])
def test_area_limits_count_pixels_with_data(gap: int, kept: bool) -> None:
    valid = ~first_rows(gap)
    changes = change_map(quadrants(EAST), quadrants(NORTH), [Mask.of(first_rows(5000))], [], 3000, 0.9, valid)
    np.testing.assert_array_equal(changes == 1, first_rows(5000) & valid if kept else np.zeros(SIZE))


def test_max_region_fraction_is_a_share_of_the_pixels_with_data() -> None:
    valid = first_rows(5000)  # of which a region may cover at most 4500
    for pixels, kept in ((4500, True), (4501, False)):
        mask = first_rows(pixels) | ~valid
        changes = change_map(quadrants(EAST), quadrants(NORTH), [Mask.of(mask)], [], 3000, 0.9, valid)
        np.testing.assert_array_equal(changes[valid], mask[valid] if kept else np.zeros(5000))


def test_an_all_true_mask_of_valid_pixels_changes_nothing() -> None:
    masks = [Mask.of(LEFT)], [Mask.of(UPPER)]
    np.testing.assert_array_equal(
        change_map(REFERENCE, MONITOR, *masks, 3000, 0.9, np.ones(SIZE, bool)),
        change_map(REFERENCE, MONITOR, *masks, 3000, 0.9),
    )


def test_with_a_tolerance_a_region_takes_its_best_match_in_the_other_image() -> None:
    # 4 x 4 cells of 25 pixels: an object, EAST, that lies one cell further to the right in the monitor image.
    before, after = np.zeros((2, 2, 4, 4))
    before[1], after[1] = 1, 1
    before[:, 1, 1], after[:, 1, 2] = EAST, EAST
    there = np.zeros(SIZE, bool)
    there[25:50, 25:50] = True
    moved = np.roll(there, 25, axis=1)

    def scores(tolerance: int, later: np.ndarray = after) -> np.ndarray:
        first, second = encoded_window(before, SIZE), encoded_window(later, SIZE)
        return change_map(first, second, [Mask.of(there)], [Mask.of(moved)], 100, 0.9, tolerance=tolerance)

    np.testing.assert_allclose(scores(0), (there | moved).astype(float), atol=1e-6)
    np.testing.assert_allclose(scores(1), 0, atol=1e-6)
    np.testing.assert_array_equal(scores(2), scores(1))
    gone = np.zeros((2, 4, 4))
    gone[1] = 1
    # The object is nowhere, so its mask keeps the score. The monitor image's mask finds what it shows next to it.
    np.testing.assert_allclose(scores(2, gone), there.astype(float), atol=1e-6)


@property_test
@given(arrays(np.float32, (2, 3, 4, 4), elements=feature_values), st.integers(1, 3))
def test_a_tolerance_never_raises_a_score(features: np.ndarray, tolerance: int) -> None:
    before, after = (encoded_window(of_image, SIZE) for of_image in features)
    upper, left = [Mask.of(UPPER)], [Mask.of(LEFT)]
    without = change_map(before, after, upper, left, 100, 0.9)
    assert (change_map(before, after, upper, left, 100, 0.9, tolerance=tolerance) <= without).all()
