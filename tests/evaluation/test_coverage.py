"""Exact coverage of pixels by polygons."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from osgeo import ogr

from evaluation.coverage import Spans, highest_of_spans, pixel_coverage, row_sums, sum_spans

Ring = Sequence[tuple[float, float]]


def cover(polygons: Sequence[Sequence[Ring]], boxes: Sequence[tuple[int, int]], rows: tuple[int, int]) -> np.ndarray:
    """Return the shares as (polygons, rows, columns). `polygons`: rings without the repeated first vertex."""
    edges = [
        (start, end, number)
        for number, rings in enumerate(polygons)
        for ring in rings
        for start, end in zip(ring, (*ring[1:], ring[0]), strict=True)
    ]
    starts, ends = (np.array([edge[side] for edge in edges], float) for side in (0, 1))
    found = pixel_coverage(starts, ends, np.array([edge[2] for edge in edges]), np.array(boxes), rows)
    shares = np.zeros((len(polygons), rows[1], max(box[1] for box in boxes)))
    for polygon, row, first, last, share in zip(*found, strict=True):
        shares[polygon, row, first:last] = share
    return shares


def test_coverage_of_a_rectangle_and_a_triangle() -> None:
    rectangle = [(0.5, 0.5), (2.5, 0.5), (2.5, 2.25), (0.5, 2.25)]
    triangle = [(0, 0), (3, 3), (0, 3)]
    first, second = cover([[rectangle], [triangle]], [(0, 3), (0, 3)], (0, 3))
    assert first.tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.125, 0.25, 0.125]]
    assert second.tolist() == [[0.5, 0, 0], [1, 0.5, 0], [1, 1, 0.5]]


def test_a_hole_is_not_covered() -> None:
    outer, hole = [(0, 0), (4, 0), (4, 4), (0, 4)], [(1, 1), (1, 3), (3, 3), (3, 1)]
    (shares,) = cover([[outer, hole]], [(0, 4)], (0, 4))
    assert shares.sum() == 12
    assert shares[1:3, 1:3].tolist() == [[0, 0], [0, 0]]


def test_a_polygon_that_reaches_beyond_the_box_is_cut() -> None:
    (shares,) = cover([[[(-5, -5), (1.5, -5), (1.5, 1.5), (-5, 1.5)]]], [(0, 2)], (0, 3))
    assert shares.tolist() == [[1, 0.5], [0.5, 0.25], [0, 0]]


def test_sums_and_highest_values_of_spans() -> None:
    values = np.array([[1, 5, 2, 0], [0, 4, 9, 3]], np.float32)
    spans = Spans(*map(np.array, ([0, 0, 1, 1], [1, 0, 0, 1], [2, 0, 1, 0], [4, 3, 2, 1], [1, 0.5, 0.25, 1.0])))
    assert sum_spans(row_sums(values), spans).tolist() == [12, 4, 1.25, 0]
    assert highest_of_spans(values, spans).tolist() == [9, 5, 5, 0]
    none = Spans(*(np.zeros(0, np.intp),) * 4, np.zeros(0))
    assert len(sum_spans(row_sums(values), none)) == len(highest_of_spans(values, none)) == 0


vertices = st.lists(st.tuples(st.floats(-3, 13), st.floats(-3, 13)), min_size=3, max_size=3)


@given(vertices, st.integers(1, 9))
def test_coverage_equals_geos(triangle: list[tuple[float, float]], cut: int) -> None:
    """Any triangle, computed in two parts of the rows, against GEOS' intersections with the pixels."""
    columns = (0, 10)
    parts = [cover([[triangle]], [columns], rows)[0] for rows in ((0, cut), (cut, 10))]
    shares = np.concatenate([parts[0], parts[1][cut:]])
    polygon = wkt([*triangle, triangle[0]])
    for y in range(10):
        for x in range(10):
            pixel = wkt([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y)])
            assert abs(polygon.Intersection(pixel).Area() - shares[y, x]) < 1e-6


def wkt(points: Ring) -> ogr.Geometry:
    return ogr.CreateGeometryFromWkt(f"POLYGON(({', '.join(f'{x!r} {y!r}' for x, y in points)}))")
