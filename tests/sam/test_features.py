from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam.features import RunLengths, WindowFeatures, region_means
from sam.masks import Mask
from tests.helpers import CELL, encoded_window, feature_values, property_test


def zero_features(size: tuple[int, int], grid: int) -> WindowFeatures:
    return encoded_window(np.zeros((1, grid, grid)), size)


@st.composite
def windows(draw: st.DrawFn) -> WindowFeatures:
    """Windows of any shape, some with fewer pixels than cells."""
    grid = draw(st.integers(1, 4))
    sides = draw(st.permutations([draw(st.integers(1, 12)), draw(st.integers(1, 12))]))
    features = draw(arrays(np.float32, (draw(st.integers(1, 3)), grid, grid), elements=feature_values))
    return encoded_window(features, (sides[0], sides[1]))


@st.composite
def labelled_windows(draw: st.DrawFn) -> tuple[WindowFeatures, np.ndarray, int]:
    """A window, the label of each of its pixels and the number of regions, some of which may be empty."""
    window = draw(windows())
    regions = draw(st.integers(1, 4))
    return window, draw(arrays(np.int64, window.window_size, elements=st.integers(0, regions))), regions


def region_masks(labels: np.ndarray, regions: int) -> list[Mask]:
    return [Mask.of(labels == label) for label in range(1, regions + 1)]


def label_counts(window: WindowFeatures, labels: np.ndarray, regions: int) -> torch.Tensor:
    """The counts of the regions labelled 1, 2, ..., from run lengths; label 0 is no region."""
    runs = RunLengths.of(labels)
    labelled = runs.at(runs.value > 0)
    return window.run_counts(labelled, labelled.value - 1, regions)


def count_pixel_by_pixel(window: WindowFeatures, labels: np.ndarray, regions: int) -> list[list[int]]:
    rows, columns = window.grid_size
    counts = np.zeros((regions, rows * columns), int)
    for (y, x), label in np.ndenumerate(labels):
        if label > 0:
            counts[label - 1, window.rows[y] * columns + window.columns[x]] += 1
    return counts.tolist()


@pytest.mark.parametrize(
    ("side", "grid", "cells"),
    [
        (8, 4, [0, 0, 1, 1, 2, 2, 3, 3]),
        (6, 4, [0, 0, 1, 2, 2, 3]),  # floor of 0, 2/3, 4/3, 2, 8/3, 10/3
        (5, 3, [0, 0, 1, 1, 2]),  # floor of 0, 0.6, 1.2, 1.8, 2.4
        (4, 4, [0, 1, 2, 3]),
        (3, 1, [0, 0, 0]),
    ],
)
def test_cells_of_a_square_window(side: int, grid: int, cells: list[int]) -> None:
    window = zero_features((side, side), grid)
    assert window.rows.tolist() == cells
    assert window.columns.tolist() == cells
    assert window.window_size == (side, side)
    assert window.grid_size == (grid, grid)


def test_wide_window_uses_the_upper_half_of_the_grid() -> None:
    window = zero_features((512, 1024), 64)
    assert window.input_size == (512, 1024)
    assert window.grid_size == (32, 64)
    assert window.rows[[0, 15, 16, 511]].tolist() == [0, 0, 1, 31]
    assert window.columns[[0, 15, 16, 1023]].tolist() == [0, 0, 1, 63]


def test_tall_window_uses_the_left_half_of_the_grid() -> None:
    window = zero_features((1024, 512), 64)
    assert window.grid_size == (64, 32)
    assert window.rows[[15, 16, 1023]].tolist() == [0, 1, 63]
    assert window.columns[[15, 16, 511]].tolist() == [0, 1, 31]


def test_cells_follow_the_rounded_input_size() -> None:
    window = zero_features((100, 300), 4)
    assert window.input_size == (21, 64)  # 100 * 64 / 300 = 21.33
    # Row p lies at p * 21 / 100 in cells of 16: row 76 at 15.96, row 77 at 16.17, row 99 at 20.79.
    assert window.rows[[0, 76, 77, 99]].tolist() == [0, 0, 1, 1]
    assert window.columns[[74, 75, 149, 150, 224, 225, 299]].tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert window.grid_size == (2, 4)


def test_padding_is_not_counted() -> None:
    features = np.full((1, 4, 4), np.nan)
    features[0, :2] = [[1, 2, 3, 4], [5, 6, 7, 8]]
    window = encoded_window(features, (4, 8))
    counts = window.mask_counts([Mask.of(np.ones((4, 8), bool))])
    assert counts.tolist() == [[4] * 8]
    (means,) = region_means(counts, [window])
    assert means.tolist() == [[4.5]]


OVERLAPPING = [
    Mask.of(np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], bool)),
    Mask.of(np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)),
]


def test_mask_counts() -> None:
    counts = zero_features((4, 4), 2).mask_counts(OVERLAPPING)
    assert counts.tolist() == [[4, 1, 1, 1], [0, 2, 0, 0]]
    assert counts.dtype == torch.float64


def test_counts_of_no_masks() -> None:
    assert zero_features((4, 4), 2).mask_counts([]).shape == (0, 4)


def test_counts_of_a_mask_with_a_box_offset() -> None:
    # Pixels (row 1, columns 1 and 2) and (row 2, column 1) of four cells of 2 x 2 pixels.
    mask = Mask.of(np.array([[True, True], [True, False]]), x=1, y=1)
    assert zero_features((4, 4), 2).mask_counts([mask]).tolist() == [[1, 1, 1, 0]]


def test_counts_of_a_large_window_are_exact() -> None:
    # One cell of 2048 x 2048 pixels: a count that needs 22 bits, which float16 or bfloat16 sums would round.
    mask = Mask.of(np.ones((2048, 2047), bool), x=1)
    assert zero_features((2048, 2048), 1).mask_counts([mask]).tolist() == [[2048 * 2047]]


def test_run_lengths_of_an_array() -> None:
    runs = RunLengths.of(np.array([[5, 5, 0], [0, 0, 0], [7, 5, 7]], np.float32))
    assert runs.row.tolist() == [0, 0, 1, 2, 2, 2]  # runs end at the end of a row, even if the value continues
    assert runs.column.tolist() == [0, 2, 0, 0, 1, 2]
    assert runs.length.tolist() == [2, 1, 3, 1, 1, 1]
    assert runs.value.tolist() == [5, 0, 0, 7, 5, 7]
    assert runs.value.dtype == np.float32


def test_selection_of_run_lengths() -> None:
    runs = RunLengths.of(np.array([[1, 1, 2, 3]])).at(np.array([True, False, True]))
    assert (runs.row.tolist(), runs.column.tolist()) == ([0, 0], [0, 3])
    assert (runs.length.tolist(), runs.value.tolist()) == ([2, 1], [1, 3])


def test_a_run_is_counted_in_every_cell_it_crosses() -> None:
    # Cells of 2 pixels: columns 1 to 6 cover one pixel of the first cell, both of the next two, one of the last.
    runs = RunLengths(*(np.array([number]) for number in (0, 1, 6, 9)))
    assert zero_features((2, 8), 4).run_counts(runs, np.array([1]), 2).tolist() == [[0] * 4, [1, 2, 2, 1]]


def test_label_counts() -> None:
    labels = np.array([[1, 1, 3, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 3]])
    # No pixel has label 2 or 4: these regions are empty.
    expected = [[4, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    assert label_counts(zero_features((4, 4), 2), labels, regions=4).tolist() == expected


def test_region_means_weight_cells_by_pixels() -> None:
    window = encoded_window(np.array([[[1, 2], [3, 14]], [[0, 70], [7, 0]]]), (4, 4))
    (means,) = region_means(window.mask_counts(OVERLAPPING), [window])
    # (4 * 1 + 2 + 3 + 14) / 7 and (70 + 7) / 7; the second mask lies in one cell.
    np.testing.assert_allclose(means, [[23 / 7, 11.0], [2.0, 70.0]], rtol=1e-12)
    assert means.dtype == np.float64


def test_region_means_of_several_images_equal_those_of_each() -> None:
    random = np.random.default_rng(8)
    images = [encoded_window(random.normal(size=(3, 4, 4)), (9, 7)) for _ in range(3)]
    masks = [Mask.of(random.random((9, 7)) < 0.4) for _ in range(5)]
    counts = images[0].mask_counts(masks)
    together = region_means(counts, images)
    assert len(together) == 3
    for image, means in zip(images, together, strict=True):
        assert means.shape == (5, 3)
        np.testing.assert_allclose(means, region_means(counts, [image])[0], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("grid", "pixels_a_cell"), [(1, 5), (3, 4), (4, 1), (8, 3), (64, 2)])
def test_region_means_equal_those_of_the_upsampled_features(grid: int, pixels_a_cell: int) -> None:
    random = np.random.default_rng(grid)
    side = grid * pixels_a_cell
    window = encoded_window(random.normal(size=(5, grid, grid)), (side, side))
    masks = random.random((3, side, side)) < [[[0.1]], [[0.5]], [[0.9]]]
    masks[:, 0, 0] = True  # no mask is empty
    (means,) = region_means(window.mask_counts([Mask.of(mask) for mask in masks]), [window])
    upsampled = torch.nn.functional.interpolate(window.embedding, size=(side, side), mode="nearest")[0].double()
    expected = np.array([upsampled[:, mask].mean(dim=1).numpy() for mask in torch.from_numpy(masks)])
    np.testing.assert_allclose(means, expected, rtol=1e-9, atol=1e-12)


@property_test
@given(labelled_windows())
def test_counts_sum_to_the_areas(drawn: tuple[WindowFeatures, np.ndarray, int]) -> None:
    window, labels, regions = drawn
    masks = region_masks(labels, regions)
    areas = [mask.area for mask in masks]
    assert window.mask_counts(masks).sum(dim=1).tolist() == areas
    assert label_counts(window, labels, regions).sum(dim=1).tolist() == areas


@property_test
@given(labelled_windows())
def test_counts_equal_those_pixel_by_pixel(drawn: tuple[WindowFeatures, np.ndarray, int]) -> None:
    window, labels, regions = drawn
    expected = count_pixel_by_pixel(window, labels, regions)
    assert window.mask_counts(region_masks(labels, regions)).tolist() == expected
    assert label_counts(window, labels, regions).tolist() == expected


@property_test
@given(labelled_windows())
def test_runs_cover_the_window(drawn: tuple[WindowFeatures, np.ndarray, int]) -> None:
    _, labels, _ = drawn
    runs = RunLengths.of(labels)
    np.testing.assert_array_equal(np.repeat(runs.value, runs.length).reshape(labels.shape), labels)
    seen = np.zeros(labels.shape, int)
    for row, column, length, value in zip(runs.row, runs.column, runs.length, runs.value, strict=True):
        seen[row, column : column + length] += 1
        assert (labels[row, column : column + length] == value).all()
        assert column == 0 or labels[row, column - 1] != value  # runs have maximum length
    assert (seen == 1).all()


@property_test
@given(windows(), st.data())
def test_counts_do_not_depend_on_the_mask_box(window: WindowFeatures, data: st.DataObject) -> None:
    pixels = data.draw(arrays(bool, window.window_size).filter(np.any))
    x0, y0, x1, y1 = Mask.of(pixels).edges
    tight = Mask.of(pixels[y0 : y1 + 1, x0 : x1 + 1], x0, y0)
    assert window.mask_counts([tight]).tolist() == window.mask_counts([Mask.of(pixels)]).tolist()


@property_test
@given(windows(), st.data())
def test_region_means_equal_the_mean_over_pixels(window: WindowFeatures, data: st.DataObject) -> None:
    masks = data.draw(st.lists(arrays(bool, window.window_size).filter(np.any), min_size=1, max_size=3))

    def cell(pixel: int, axis: int) -> int:
        return int(pixel * Fraction(window.input_size[axis], window.window_size[axis]) / CELL)

    features = window.embedding[0].double().numpy()
    expected = [
        np.mean([features[:, cell(y, axis=0), cell(x, axis=1)] for y, x in np.argwhere(mask).tolist()], axis=0)
        for mask in masks
    ]
    (means,) = region_means(window.mask_counts([Mask.of(mask) for mask in masks]), [window])
    np.testing.assert_allclose(means, expected, rtol=1e-9, atol=1e-12)


def test_moved_features_repeat_the_edge_of_the_window() -> None:
    features = encoded_window(np.arange(16.0).reshape(1, 4, 4), (100, 75))  # three columns of cells hold pixels
    moved = [of_move.embedding[0, 0, :4, :3].tolist() for of_move in features.moved(1)]
    assert len(moved) == 8
    assert moved[0] == [[0, 0, 1], [0, 0, 1], [4, 4, 5], [8, 8, 9]]  # from the left above
    assert moved[-1] == [[5, 6, 6], [9, 10, 10], [13, 14, 14], [13, 14, 14]]
    assert list(features.moved(0)) == []
