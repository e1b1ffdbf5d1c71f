"""Exact shares of the pixels that polygons cover, for many polygons at once."""

from typing import NamedTuple

import numpy as np


class Spans(NamedTuple):
    """Neighbouring pixels of a row of which a polygon covers the same share."""

    polygon: np.ndarray  # (n,) intp: index of the polygon
    row: np.ndarray  # (n,) intp
    first: np.ndarray  # (n,) intp: column
    last: np.ndarray  # (n,) intp: the column after the last one
    share: np.ndarray  # (n,) float64, 0 to 1: of each pixel's area


def pixel_coverage(
    starts: np.ndarray, ends: np.ndarray, polygon: np.ndarray, boxes: np.ndarray, rows: tuple[int, int]
) -> Spans:
    """Return the share of each pixel that each polygon covers, in the rows `rows[0]` to `rows[1]` - 1.

    An edge of a polygon covers, in its row, the part to the right of it; the parts of all edges, with their signs, sum
    up to the polygon. This is exact for polygons whose rings do not cross. Programs that draw letters do so, too; here,
    only the pixels where the share changes are computed, because most of a polygon lies between its edges.

    `starts`, `ends`: (m, 2) float64, the edges, x and y in pixels; outer rings and holes run in opposite directions.
    `polygon`: (m,) intp, of each edge. `boxes`: (polygons, 2) intp: the first column, and the column after the last, of
    each polygon within the image; its edges may lie beside them.
    """
    first, last = rows
    starts, ends, polygon = _clip_to_rows(starts, ends, polygon, first, last)
    # Beside the box, an edge counts as one along its side: to the left it covers the whole row, to the right nothing.
    low, high = boxes[polygon, 0].astype(float), boxes[polygon, 1].astype(float)
    starts, ends, polygon, low, high = _split_at(starts, ends, polygon, low, high)
    middle = np.clip((starts[:, 0] + ends[:, 0]) / 2, low, high)
    column = np.clip(np.floor(middle), low, high - 1)
    row = np.clip(np.floor((starts[:, 1] + ends[:, 1]) / 2), first, last - 1)  # rounding
    height = ends[:, 1] - starts[:, 1]
    right = middle - column  # 0 to 1: the part of its own pixel that lies to the left of the edge
    # The share changes at the edge's pixel and at the one to the right of it.
    line = polygon * (last - first) + (row - first).astype(np.intp)
    width = int(boxes[:, 1].max(initial=0)) + 1
    pixel = line * width + column.astype(np.intp)
    return _between(
        np.concatenate([pixel, pixel + 1]), np.concatenate([height * (1 - right), height * right]), width, rows
    )


def _between(pixels: np.ndarray, changes: np.ndarray, width: int, rows: tuple[int, int]) -> Spans:
    """Return the spans between the pixels where a share changes. `pixels`: polygon, row and column in one number."""
    pixels, inverse = np.unique(pixels, return_inverse=True)
    line, column = np.divmod(pixels, width)
    # Each row of a polygon sums up to 0, so that the running sum need not begin anew.
    share = np.minimum(np.abs(np.cumsum(np.bincount(inverse, changes, len(pixels)))), 1.0)
    covered = (np.roll(line, -1) == line) & (share > 1e-9)
    after = np.roll(column, -1)
    polygon, row = np.divmod(line[covered], rows[1] - rows[0])
    return Spans(polygon, row + rows[0], column[covered], after[covered], share[covered])


def _clip_to_rows(
    starts: np.ndarray, ends: np.ndarray, polygon: np.ndarray, first: int, last: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the parts of edges that lie in some rows; horizontal edges, which change nothing, are left out."""
    low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    kept = (low < last) & (high > first) & (low < high)
    starts, ends, polygon = starts[kept], ends[kept], polygon[kept]
    slope = (ends - starts) / (ends[:, 1:] - starts[:, 1:])
    clipped = [np.clip(points[:, 1:], first, last) for points in (starts, ends)]
    return starts + slope * (clipped[0] - starts[:, 1:]), starts + slope * (clipped[1] - starts[:, 1:]), polygon


def _split_at(
    starts: np.ndarray, ends: np.ndarray, polygon: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Split edges where they leave a pixel; beside the columns `low` to `high`, only where they leave a row.

    Returns starts, ends, polygon, low and high of the pieces.
    """
    positions, edges = [np.zeros(len(starts)), np.ones(len(starts))], [np.arange(len(starts))] * 2
    for axis in (0, 1):
        begin, end = starts[:, axis], ends[:, axis]
        if axis == 0:
            begin, end = np.clip(begin, low, high), np.clip(end, low, high)
        lowest, highest = np.ceil(np.minimum(begin, end)), np.floor(np.maximum(begin, end))
        count = np.maximum(highest - lowest + 1, 0).astype(np.intp)
        edge = np.repeat(np.arange(len(starts)), count)
        line = lowest[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        length = ends[edge, axis] - starts[edge, axis]
        crossing = length != 0
        edges.append(edge[crossing])
        positions.append((line[crossing] - starts[edge[crossing], axis]) / length[crossing])
    position, edge = np.clip(np.concatenate(positions), 0, 1), np.concatenate(edges)
    order = np.argsort(edge + position / 2)  # by edge, then by position: twice as fast as lexsort
    position, edge = position[order], edge[order]
    piece = np.flatnonzero((edge[1:] == edge[:-1]) & (position[1:] > position[:-1]))
    whole = ends - starts
    begin, end = (starts[edge[piece]] + whole[edge[piece]] * position[index][:, None] for index in (piece, piece + 1))
    owner = edge[piece]
    return begin, end, polygon[owner], low[owner], high[owner]


def row_sums(values: np.ndarray) -> np.ndarray:
    """Return the sums of each row's values to the left of each pixel's edges, (h, w + 1) float64, for `sum_spans`."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, dtype=float, out=sums[:, 1:])
    return sums


def sum_spans(sums: np.ndarray, spans: Spans) -> np.ndarray:
    """Return the sum of the values of each span, weighted by its share, (n,) float64. `sums`: see `row_sums`."""
    return (sums[spans.row, spans.last] - sums[spans.row, spans.first]) * spans.share


def highest_of_spans(values: np.ndarray, spans: Spans) -> np.ndarray:
    """Return the highest value of each span, (n,) float. `values`: (h, w)."""
    begin = spans.row * values.shape[1] + spans.first
    order = np.argsort(begin)  # so that the pixels between two spans are passed only once
    limits = np.stack([begin, begin + spans.last - spans.first], axis=1)[order].ravel()
    highest = np.empty(len(begin), values.dtype)
    highest[order] = np.maximum.reduceat(np.append(values.ravel(), -np.inf), limits)[::2]
    return highest
