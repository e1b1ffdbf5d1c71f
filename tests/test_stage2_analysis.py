from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import config
from pipeline.filtered_map import filter_change_map
from rasters.raster import MemoryRaster
from sam.features import WindowFeatures
from stage2_analysis import ChangedRegions, Similarities, anomaly_map, compare_dates, cosine_similarity
from tests.helpers import SIZE, encoded_window, feature_values, first_rows, property_test, quadrants, whole

EAST, NORTH, WEST, ZERO = (1, 0), (0, 1), (-1, 0), (0, 0)
HALF = first_rows(5000)


def published_map(filtered: np.ndarray, historical: Sequence[WindowFeatures], monitor: WindowFeatures) -> np.ndarray:
    return anomaly_map(
        filtered.astype(np.float32), historical, monitor, config.STAGE2_MIN_MASK_PIXELS, config.MAX_REGION_FRACTION
    )


def score_of_half(historical: Sequence[Sequence[float]], monitor: Sequence[float]) -> float:
    """The score of one region with these features of the dates."""
    scores = published_map(HALF, [quadrants(date) for date in historical], quadrants(monitor))
    np.testing.assert_array_equal(scores, np.where(HALF, scores[0, 0], 0))
    return float(scores[0, 0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (range(11), [0] * 7 + [7, 8, 9, 10]),  # the quantile is the value at index 7, which is kept
        (range(10), [0] * 7 + [7, 8, 9]),  # index 6.3: 6.3
        ([0, 10], [0, 10]),  # index 0.7: 7
        ([1, 5, 5, 5, 9], [0, 5, 5, 5, 9]),  # index 2.8: 5, and ties are kept
        ([3, 3, 3, 3], [3, 3, 3, 3]),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),  # index 6.3: 0
    ],
)
def test_filter_zeroes_values_below_the_quantile(values: Sequence[float], expected: list[float]) -> None:
    changes = MemoryRaster(np.array([values], np.float32))
    filtered = whole(filter_change_map(changes, config.STAGE2_CHANGE_MAP_QUANTILE))
    assert filtered.tolist() == [expected]
    assert filtered.dtype == np.float32


def test_filter_does_not_modify_its_input() -> None:
    changes = np.arange(6, dtype=np.float32).reshape(2, 3)
    whole(filter_change_map(MemoryRaster(changes), 0.7))
    assert changes.tolist() == [[0, 1, 2], [3, 4, 5]]


@property_test
@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(0, 1, width=32)),
    st.floats(0, 1),
)
def test_filter_uses_the_linear_quantile_of_the_float32_map(changes: np.ndarray, quantile: float) -> None:
    filtered = whole(filter_change_map(MemoryRaster(changes), quantile))
    kept = changes >= np.quantile(changes, quantile, method="linear")
    np.testing.assert_array_equal(filtered[kept], changes[kept])
    assert not filtered[~kept].any()


@pytest.mark.parametrize(
    ("a", "b", "cosine"),
    [
        ((1, 0), (3, 4), 0.6),
        ((1, 2, 2), (2, 3, 6), 20 / 21),
        ((1, 0), (0, 2), 0),
        ((1, 2), (-2, -4), -1),
        ((1e-6, 0), (1e-6, 0), 1),  # no epsilon, unlike stage 1
    ],
)
def test_cosine_similarity(a: Sequence[float], b: Sequence[float], cosine: float) -> None:
    (found,) = cosine_similarity(np.array([a], float), np.array([b], float))
    assert found == pytest.approx(cosine, abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_cosine_of_a_zero_vector_is_zero() -> None:
    similarity = cosine_similarity(np.array([ZERO, EAST, ZERO, EAST], float), np.array([EAST, ZERO, ZERO, EAST], float))
    assert similarity.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("historical", "monitor", "score"),
    [
        ([EAST], (3, 4), 0.4),
        ([NORTH], (3, 4), 0.2),
        ([EAST, NORTH], (3, 4), 0.2),  # the most similar date counts, in any order
        ([NORTH, EAST], (3, 4), 0.2),
        ([WEST, NORTH, WEST], EAST, 1),
        ([EAST], EAST, 0),
    ],
)
def test_score_is_the_dissimilarity_to_the_most_similar_date(
    historical: Sequence[Sequence[float]], monitor: Sequence[float], score: float
) -> None:
    assert score_of_half(historical, monitor) == pytest.approx(score, abs=1e-6)


def test_opposite_vectors_score_two() -> None:
    assert score_of_half([WEST], EAST) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("historical", "monitor", "score"),
    [
        ([ZERO], EAST, 1),
        ([EAST], ZERO, 1),
        ([ZERO], ZERO, 1),
        ([ZERO, (4, 3)], EAST, 0.2),
        ([WEST, ZERO], EAST, 1),  # cosine 0 is more similar than -1
    ],
)
def test_constant_zero_date_has_cosine_zero(
    historical: Sequence[Sequence[float]], monitor: Sequence[float], score: float
) -> None:
    assert score_of_half(historical, monitor) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(("pixels", "kept"), [(1499, False), (1500, True), (9000, True), (9001, False)])
def test_area_limits(pixels: int, kept: bool) -> None:
    region = first_rows(pixels)
    scores = published_map(np.where(region, 0.5, 0), [quadrants(EAST)], quadrants(NORTH))
    np.testing.assert_array_equal(scores, region if kept else np.zeros(SIZE))


def test_regions_are_the_pixels_of_equal_value() -> None:
    filtered = np.zeros(SIZE)
    filtered[:10, :75] = filtered[90:, :75] = 0.3  # 1500 pixels in two parts of 750
    filtered[20:50, :50] = 0.6
    filtered[20:50, 50:] = np.nextafter(np.float32(0.6), np.float32(1))
    scores = published_map(filtered, [quadrants(EAST)], quadrants((3, 4), (4, -3), NORTH, NORTH))
    # The first region's features sum to 500 * (3, 4) + 250 * (4, -3) + 750 * (0, 1) = 500 * (5, 4).
    expected = np.where(filtered == 0.3, 1 - 5 / 41**0.5, 0)
    expected[20:50, :50] = 0.4
    expected[20:50, 50:] = 0.2
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_zero_pixels_form_no_region() -> None:
    scores = published_map(np.zeros(SIZE), [quadrants(EAST)], quadrants(NORTH))
    np.testing.assert_array_equal(scores, np.zeros(SIZE))
    assert scores.dtype == np.float32


def test_map_is_float32_of_the_window_size() -> None:
    filtered = np.where(np.arange(6600) < 3300, 0.5, 0).reshape(60, 110)
    historical, monitor = (encoded_window(np.full((1, 4, 4), value), (60, 110)) for value in (-1, 1))
    scores = published_map(filtered, [historical], monitor)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, 4 * filtered)


@property_test
@given(
    arrays(np.float32, (3, 2, 3, 3), elements=feature_values),
    arrays(np.float32, (4, 6), elements=st.sampled_from([0, 0.25, 0.5, 1])),
)
def test_scores_lie_between_zero_and_two(features: np.ndarray, filtered: np.ndarray) -> None:
    *historical, monitor = (encoded_window(of_date, (4, 6)) for of_date in features)
    scores = anomaly_map(filtered, historical, monitor, min_region_pixels=2, max_region_fraction=0.9)
    # Not clipped: rounding may exceed the limits.
    assert np.all((scores >= -1e-6) & (scores <= 2 + 1e-6))
    assert not scores[filtered == 0].any()


# --- Pixels without data ---------------------------------------------------------------------------------------------
def test_filter_excludes_pixels_without_data_from_the_quantile() -> None:
    changes = np.array([[0.1, np.nan, 0.2, 0.3], [np.nan, 0.4, 0.5, np.nan]], np.float32)
    filtered = whole(filter_change_map(MemoryRaster(changes), 0.5))  # of 0.1 to 0.5: 0.3
    np.testing.assert_array_equal(filtered, np.where(changes < 0.3, np.float32(0), changes))


def test_filter_of_a_map_without_data_is_all_nan() -> None:
    assert np.isnan(whole(filter_change_map(MemoryRaster(np.full(SIZE, np.nan, np.float32)), 0.7))).all()


def test_pixels_without_data_are_excluded_from_regions_and_scores() -> None:
    filtered = np.where(first_rows(6000), np.float32(0.5), np.float32(0))
    filtered[50:60] = np.nan
    scores = published_map(filtered, [quadrants(EAST)], quadrants(EAST, EAST, NORTH, NORTH))
    assert np.isnan(scores[50:60]).all()
    np.testing.assert_array_equal(scores[~np.isnan(filtered)], 0)  # the changed quadrants have no data


def test_area_limits_count_pixels_with_data() -> None:
    for pixels, kept in ((4500, True), (4501, False)):  # 0.9 of the 5000 that hold data
        filtered = np.where(first_rows(pixels), 0.5, 0).astype(np.float32)
        filtered[50:] = np.nan
        scores = published_map(filtered, [quadrants(EAST)], quadrants(NORTH))
        np.testing.assert_array_equal(scores[:50], first_rows(pixels)[:50] if kept else 0)


# --- Dates without data in a part of the place -----------------------------------------------------------------------
def partial_map(
    filtered: np.ndarray,
    older: Sequence[tuple[WindowFeatures, np.ndarray | None]],
    reference: WindowFeatures,
    monitor: WindowFeatures,
    min_date_coverage: float = config.STAGE2_MIN_DATE_COVERAGE,
) -> np.ndarray:
    return anomaly_map(
        filtered.astype(np.float32),
        [*(features for features, _ in older), reference],
        monitor,
        config.STAGE2_MIN_MASK_PIXELS,
        config.MAX_REGION_FRACTION,
        [*(valid for _, valid in older), None],
        min_date_coverage,
    )


@pytest.mark.parametrize(
    ("pixels", "least", "score"),
    [
        (2500, 0.5, 0),  # exactly half of the region's 5000 pixels
        (2499, 0.5, 1),
        (0, 0.5, 1),
        (5000, 0.5, 0),
        (5000, 1.0, 0),
        (4999, 1.0, 1),
        (1, 0.0, 0),
        (0, 0.0, 1),  # without any pixel there is no average
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_date_takes_part_if_it_covers_the_least_share_of_a_region(pixels: int, least: float, score: float) -> None:
    older = [(quadrants(EAST), first_rows(pixels))]
    scores = partial_map(HALF, older, quadrants(NORTH), quadrants(EAST), least)
    np.testing.assert_array_equal(scores, np.where(HALF, np.float32(score), 0))


def test_both_features_are_averaged_over_the_pixels_that_the_date_covers() -> None:
    # The region is the left half; the older date covers its upper 3000 pixels: 2500 in one quadrant, 500 in the other.
    region = first_rows(5000).T
    valid = np.zeros(SIZE, bool)
    valid[:60] = True
    older = [(quadrants(EAST, ZERO, NORTH, ZERO), valid)]
    monitor = quadrants((3, 4), ZERO, (4, 3), ZERO)
    scores = partial_map(region, older, quadrants(WEST), monitor)
    # Sums: 2500 (1, 0) + 500 (0, 1) = 500 (5, 1), and 2500 (3, 4) + 500 (4, 3) = 500 (19, 23).
    expected = 1 - (5 * 19 + 23) / (26 * (19**2 + 23**2)) ** 0.5
    np.testing.assert_allclose(scores, np.where(region, expected, 0), atol=1e-6)


def test_three_dates_explain_a_third_each() -> None:
    filtered = np.zeros(SIZE)
    thirds = [slice(0, 30), slice(35, 65), slice(70, 100)]
    valid = [np.zeros(SIZE, bool) for _ in thirds]
    for value, third, of_date in zip((0.3, 0.6, 0.9), thirds, valid, strict=True):
        filtered[third] = value
        of_date[third] = True
    older = [(quadrants(EAST), of_date) for of_date in valid]
    assert not partial_map(filtered, older, quadrants(NORTH), quadrants(EAST)).any()
    scores = partial_map(filtered, older[:2], quadrants(NORTH), quadrants(EAST))
    np.testing.assert_array_equal(scores, np.where(filtered > 0.8, np.float32(1), 0))


def test_a_date_without_data_is_ignored() -> None:
    empty = (quadrants(EAST), np.zeros(SIZE, bool))
    features = quadrants((3, 4)), quadrants(NORTH)
    np.testing.assert_array_equal(partial_map(HALF, [empty], *features), partial_map(HALF, [], *features))


@property_test
@given(
    arrays(np.float32, (4, 2, 3, 3), elements=feature_values),
    arrays(np.float32, (6, 9), elements=st.sampled_from([0, 0.25, 0.5, 1, np.nan])),
)
def test_masks_that_leave_out_only_pixels_without_change_data_do_not_change_a_bit(
    features: np.ndarray, filtered: np.ndarray
) -> None:
    *historical, monitor = (encoded_window(of_date, (6, 9)) for of_date in features)
    everywhere = anomaly_map(filtered, historical, monitor, 2, 0.9)
    masks = [None, ~np.isnan(filtered), np.ones((6, 9), bool)]
    np.testing.assert_array_equal(anomaly_map(filtered, historical, monitor, 2, 0.9, masks), everywhere)


@property_test
@given(
    arrays(np.float32, (3, 2, 3, 3), elements=st.floats(1, 8, width=32)),  # means do not cancel
    arrays(np.float32, (6, 9), elements=st.sampled_from([0, 0.25, 0.5, np.nan])),
    arrays(bool, (6, 9)),
)
def test_a_partial_date_equals_the_comparison_pixel_by_pixel(
    features: np.ndarray, filtered: np.ndarray, valid: np.ndarray
) -> None:
    older, reference, monitor = windows = [encoded_window(of_date, (6, 9)) for of_date in features]
    found = anomaly_map(filtered, [older, reference], monitor, 2, 0.9, [valid, None])
    upsampled = [window.embedding[0].numpy()[:, window.rows][:, :, window.columns] for window in windows]
    expected = np.where(np.isnan(filtered), np.float32(np.nan), np.float32(0))
    for value in (0.25, 0.5):
        region = filtered == value
        if not 2 <= region.sum() <= 0.9 * np.count_nonzero(~np.isnan(filtered)):
            continue
        similarities = []
        for date, pixels in ((0, region & valid), (1, region)):
            if pixels.any() and pixels.sum() >= 0.5 * region.sum():
                a, b = (upsampled[one][:, pixels].astype(float).mean(axis=1) for one in (date, 2))
                similarities.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        expected[region] = 1 - max(similarities)
    np.testing.assert_allclose(found, expected, atol=1e-6, equal_nan=True)


# --- Explanations ----------------------------------------------------------------------------------------------------
def similarities_of_half(
    historical: Sequence[Sequence[float]],
    monitor: Sequence[float],
    valid: Sequence[np.ndarray | None] | None = None,
) -> Similarities:
    """The comparison of one region, the upper half, with these features of the dates."""
    regions = ChangedRegions.of(HALF.astype(np.float32), 1500, 0.9)
    dates = [quadrants(date) for date in historical]
    return compare_dates(regions, dates, quadrants(monitor), valid, between_dates=True)


@pytest.mark.parametrize(
    ("historical", "usual"),
    [
        ([EAST, EAST], 0),
        ([EAST, NORTH], 1),
        ([EAST, (3, 4)], 0.4),  # cosine 0.6, for both
        ([EAST, (3, 4), EAST], 0.4),  # the second date is the most unusual one
        ([EAST, (3, 4), NORTH], 0.4),  # best cosines: 0.6, 0.8, 0.8
        ([WEST, NORTH, EAST], 1),
        ([EAST, WEST], 2),
        ([ZERO, EAST, EAST], 1),
    ],
)
def test_the_usual_score_leaves_one_date_out(historical: Sequence[Sequence[float]], usual: float) -> None:
    found = similarities_of_half(historical, WEST)
    np.testing.assert_allclose(found.usual_scores, [usual], atol=1e-12)


def test_similarities_are_those_with_each_date() -> None:
    found = similarities_of_half([EAST, NORTH, ZERO, WEST], (3, 4))
    np.testing.assert_allclose(found.with_monitor, [[0.6, 0.8, 0, -0.6]], atol=1e-12)
    np.testing.assert_allclose(found.scores, [0.2], atol=1e-7)
    np.testing.assert_array_equal(found.between_dates[0], found.between_dates[0].T)


def test_one_date_has_no_usual_score() -> None:
    assert np.isnan(similarities_of_half([EAST], EAST).usual_scores).all()


def test_two_dates_are_compared_where_both_hold_data() -> None:
    # Each date covers 3000 of the region's 5000 pixels; both cover 1000, which is below half of them.
    first, second = first_rows(3000), first_rows(5000) & ~first_rows(2000)
    found = similarities_of_half([EAST, NORTH, (3, 4)], EAST, [first, second, None])
    np.testing.assert_allclose(found.with_monitor, [[1, 0, 0.6]], atol=1e-12)
    nan = np.nan
    np.testing.assert_allclose(found.between_dates[0], [[nan, nan, 0.6], [nan, nan, 0.8], [0.6, 0.8, nan]], atol=1e-12)
    np.testing.assert_allclose(found.usual_scores, [0.4], atol=1e-12)  # 0.4, 0.2, 0.2


def test_features_of_two_dates_are_averaged_over_their_common_pixels() -> None:
    # Both dates differ between the quadrants of the left half, of which one date covers the upper 3000 pixels.
    region = first_rows(5000).T
    valid = np.zeros(SIZE, bool)
    valid[:60] = True
    regions = ChangedRegions.of(region.astype(np.float32), 1500, 0.9)
    dates = [quadrants(EAST, ZERO, NORTH, ZERO), quadrants((3, 4), ZERO, (4, 3), ZERO)]
    found = compare_dates(regions, dates, quadrants(EAST), [valid, None], between_dates=True)
    expected = (5 * 19 + 23) / (26 * (19**2 + 23**2)) ** 0.5
    np.testing.assert_allclose(found.between_dates[0, 0, 1], expected, atol=1e-12)


@property_test
@given(
    arrays(np.float32, (5, 2, 3, 3), elements=feature_values),
    arrays(np.float32, (6, 9), elements=st.sampled_from([0, 0.25, 0.5, 1, np.nan])),
    arrays(bool, (2, 6, 9)),
)
def test_explaining_does_not_change_the_scores(features: np.ndarray, filtered: np.ndarray, valid: np.ndarray) -> None:
    *historical, monitor = (encoded_window(of_date, (6, 9)) for of_date in features)
    masks = [*valid, None, None]
    regions = ChangedRegions.of(filtered, 2, 0.9)
    explained = compare_dates(regions, historical, monitor, masks, between_dates=True)
    plain = anomaly_map(filtered, historical, monitor, 2, 0.9, masks)
    np.testing.assert_allclose(regions.paint(explained.scores), plain, atol=1e-7)
    if len(regions.values):
        # The usual score is the highest anomaly score of a historical date against the others.
        of_dates = [
            compare_dates(
                regions, historical[:date] + historical[date + 1 :], historical[date], masks[:date] + masks[date + 1 :]
            ).scores
            for date in range(4)
        ]
        whole_dates = np.max(of_dates[2:], axis=0)
        assert (explained.usual_scores >= whole_dates - 1e-6).all()


def test_with_a_tolerance_a_region_takes_its_best_match_in_each_earlier_date() -> None:
    # 4 x 4 cells of 25 pixels. The region lies in cell (1, 1); each date shows it elsewhere, or not at all.
    region = np.zeros(SIZE, bool)
    region[25:50, 25:50] = True

    def date(*cells: tuple[int, int]) -> WindowFeatures:
        features = np.zeros((2, 4, 4))
        features[1] = 1
        for row, column in cells:
            features[:, row, column] = EAST
        return encoded_window(features, SIZE)

    regions = ChangedRegions.of(region.astype(np.float32), 100, 0.9)
    dates = [date((1, 2)), date((3, 3)), date()]

    def similarities(tolerance: int) -> Similarities:
        return compare_dates(regions, dates, date((1, 1)), between_dates=True, tolerance=tolerance)

    np.testing.assert_allclose(similarities(0).with_monitor, [[0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(similarities(1).with_monitor, [[1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(similarities(2).with_monitor, [[1, 1, 0]], atol=1e-6)
    # Of two earlier dates, the first one is moved: at the region's place, all of the others show NORTH.
    between = similarities(1).between_dates[0]
    np.testing.assert_allclose(between[~np.eye(3, dtype=bool)], 1, atol=1e-6)
    assert np.isnan(np.diag(between)).all()
    map_with = anomaly_map(region.astype(np.float32), dates[:1], date((1, 1)), 100, 0.9, tolerance=1)
    np.testing.assert_allclose(map_with, 0, atol=1e-6)


@property_test
@given(arrays(np.float32, (3, 3, 4, 4), elements=feature_values), st.integers(1, 3))
def test_a_tolerance_never_raises_a_score(features: np.ndarray, tolerance: int) -> None:
    *dates, monitor = (encoded_window(of_date, SIZE) for of_date in features)
    without = anomaly_map(HALF.astype(np.float32), dates, monitor, 100, 0.9)
    assert (anomaly_map(HALF.astype(np.float32), dates, monitor, 100, 0.9, tolerance=tolerance) <= without).all()
