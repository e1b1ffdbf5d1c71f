"""masks.py: masks stored in boxes, and a clean-up that equals segment_anything's on the whole window."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segment_anything.utils.amg import remove_small_regions

from sam.masks import Mask, clean_mask
from tests.helpers import property_test
from utils import Window

PICTURE = np.array([[0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0]], bool)
# Margin of the box around the mask's pixels: none, one pixel, the whole window.
MARGINS = (0, 1, 1000)


def pixels(*rows: str) -> np.ndarray:
    """A window drawn with "#" for the mask's pixels."""
    return np.array([[character == "#" for character in row] for row in rows])


def boxed(window: np.ndarray, margin: int) -> Mask:
    """The mask of a window's pixels, in a box with a margin around them."""
    rows, columns = np.nonzero(window)
    if not len(rows):
        return Mask.of(window)
    top, left = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    part = window[top : rows.max() + 1 + margin, left : columns.max() + 1 + margin]
    return Mask.of(part, int(left), int(top))


def stock_clean(window: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """The clean-up of SamAutomaticMaskGenerator."""
    filled, had_holes = remove_small_regions(window, min_area, "holes")
    cleaned, had_islands = remove_small_regions(filled, min_area, "islands")
    return cleaned, had_holes or had_islands


def check_against_stock(window: np.ndarray, min_area: int) -> None:
    expected, changes = stock_clean(window, min_area)
    for margin in MARGINS:
        mask = boxed(window, margin)
        cleaned, changed = clean_mask(mask, window.shape, min_area)
        np.testing.assert_array_equal(cleaned.full(window.shape), expected)
        assert changed == changes
        assert cleaned.area == np.count_nonzero(expected)
        if not changed:
            assert cleaned is mask


def blobs(random: np.random.Generator, size: tuple[int, int], smoothness: float, level: float) -> np.ndarray:
    """Random smooth shapes with holes and islands, which cover about 1 - `level` of the window."""
    noise = random.normal(size=size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), smoothness) if smoothness else noise
    return smooth > np.quantile(smooth, level)


# --- Masks -----------------------------------------------------------------------------------------------------------
def test_full_places_a_mask_at_its_box() -> None:
    mask = Mask.of(PICTURE, x=4, y=2)
    assert mask.box == Window(4, 2, 5, 3)
    assert mask.area == 3
    assert mask.edges == (5, 3, 7, 4)  # first column, first row, last column, last row
    assert np.argwhere(mask.full((6, 9))).tolist() == [[3, 5], [3, 7], [4, 6]]


def test_a_mask_of_a_whole_window() -> None:
    mask = Mask.of(np.ones((3, 5), bool))
    assert mask.box == Window(0, 0, 5, 3)
    assert mask.area == 15
    assert mask.edges == (0, 0, 4, 2)
    assert mask.full((3, 5)).all()


def test_an_empty_mask_has_edges_of_zero() -> None:
    mask = Mask.of(np.zeros((2, 2), bool), x=3, y=1)
    assert mask.edges == (0, 0, 0, 0)  # as in batched_mask_to_box
    assert mask.area == 0
    assert not mask.full((4, 8)).any()


@property_test
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.sampled_from(MARGINS))
def test_a_boxed_mask_equals_the_full_mask(window: np.ndarray, margin: int) -> None:
    mask = boxed(window, margin)
    np.testing.assert_array_equal(mask.full(window.shape), window)
    assert mask.area == window.sum()
    if mask.area:
        rows, columns = np.nonzero(window)
        assert mask.edges == (columns.min(), rows.min(), columns.max(), rows.max())


# --- Clean-up by hand ------------------------------------------------------------------------------------------------
def cleaned_by_hand(window: np.ndarray, min_area: int) -> np.ndarray:
    cleaned, _ = clean_mask(Mask.of(window), window.shape, min_area)
    return cleaned.full(window.shape)


def test_holes_below_the_area_are_filled() -> None:
    window = pixels(".........", ".#######.", ".#.##..#.", ".#######.", ".........")
    filled = pixels(".........", ".#######.", ".####..#.", ".#######.", ".........")
    np.testing.assert_array_equal(cleaned_by_hand(window, 2), filled)  # the hole of two pixels stays


def test_islands_below_the_area_are_dropped() -> None:
    window = pixels("..........", ".####..##.", ".####...#.", "..........", ".#........", "..........")
    left = pixels("..........", ".####..##.", ".####...#.", "..........", "..........", "..........")
    np.testing.assert_array_equal(cleaned_by_hand(window, 3), left)


def test_diagonal_neighbours_are_connected() -> None:
    window = pixels("......", ".#....", "..#...", "...#..", "......")
    np.testing.assert_array_equal(cleaned_by_hand(window, 3), window)


def test_holes_are_filled_before_islands_are_dropped() -> None:
    # A ring of 8 pixels around a hole of one: 9 pixels once filled, so it is not dropped.
    window = pixels(".......", "..###..", "..#.#..", "..###..", ".......", "######.", "######.")
    expected = pixels(".......", "..###..", "..###..", "..###..", ".......", "######.", "######.")
    np.testing.assert_array_equal(cleaned_by_hand(window, 9), expected)


def test_the_largest_island_is_kept_if_all_are_small() -> None:
    window = pixels("#.....", "...##.", "......", "#.#...")
    np.testing.assert_array_equal(cleaned_by_hand(window, 5), pixels("......", "...##.", "......", "......"))


def test_background_at_the_window_edge_counts_as_a_hole() -> None:
    window = pixels(".###", "####", "####")  # one background pixel, in the corner
    assert cleaned_by_hand(window, 2).all()


# --- Clean-up compared with segment_anything -------------------------------------------------------------------------
@pytest.mark.parametrize("min_area", [0, 1, 7, 10_000])
@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (12, 9), (101, 100)])
def test_empty_and_full_masks_equal_stock(size: tuple[int, int], value: bool, min_area: int) -> None:
    check_against_stock(np.full(size, value), min_area)


@pytest.mark.parametrize("min_area", [1, 16])  # the background of 15 pixels is kept, then filled as a hole
def test_clean_up_of_an_empty_mask_with_a_box_offset(min_area: int) -> None:
    empty = Mask.of(np.zeros((2, 2), bool), x=3, y=1)
    cleaned, changed = clean_mask(empty, (3, 5), min_area)
    assert changed == (min_area == 16)
    assert cleaned.area == (15 if changed else 0)


def test_the_island_kept_among_equals_is_that_of_stock() -> None:
    # cv2 numbers islands by blocks of 2 x 2 pixels: in the window, the left one is first, although it is a row below.
    # In a box that begins in the second row, it would be second.
    window = pixels(".......", ".......", ".....#.", ".#.....", ".......", ".......")
    left = pixels(".......", ".......", ".......", ".#.....", ".......", ".......")
    for margin in MARGINS:
        np.testing.assert_array_equal(clean_mask(boxed(window, margin), (6, 7), 2)[0].full((6, 7)), left)


def test_the_island_kept_among_equals_is_that_of_stock_at_any_position() -> None:
    for first in np.ndindex(6, 6):
        for second in np.ndindex(6, 6):
            window = np.zeros((7, 8), bool)
            window[first[0] + 1, first[1] + 1] = window[second[0] + 1, second[1] + 1] = True
            check_against_stock(window, 2)


@property_test
@given(arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8))), st.integers(0, 20))
def test_clean_up_of_any_mask_equals_stock(window: np.ndarray, min_area: int) -> None:
    check_against_stock(window, min_area)


@property_test
@given(
    arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 5))),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.integers(0, 40),
)
def test_clean_up_of_masks_near_the_edges_equals_stock(
    part: np.ndarray, before: tuple[int, int], behind: tuple[int, int], min_area: int
) -> None:
    window = np.pad(part, list(zip(before, behind, strict=True)))
    check_against_stock(window, min_area)


@pytest.mark.parametrize("size", [(40, 40), (64, 31), (23, 80)])
@pytest.mark.parametrize("smoothness", [0, 0.7, 1.5, 4])
def test_clean_up_of_random_blobs_equals_stock(size: tuple[int, int], smoothness: float) -> None:
    random = np.random.default_rng(5)
    for level in (0.05, 0.3, 0.5, 0.8, 0.97):
        for min_area in (2, 6, 25, 120, 700, 3000):
            check_against_stock(blobs(random, size, smoothness, level), min_area)


@pytest.mark.parametrize("min_area", [20, 150, 10_000])
def test_clean_up_of_a_blob_inside_a_window_equals_stock(min_area: int) -> None:
    random = np.random.default_rng(6)
    for left, top in np.ndindex(4, 4):  # boxes that begin at odd and even pixels, with strips of any width beside them
        window = np.zeros((60, 70), bool)
        window[top : top + 33, left : left + 41] = blobs(random, (33, 41), 1.2, 0.5)
        check_against_stock(window, min_area)
