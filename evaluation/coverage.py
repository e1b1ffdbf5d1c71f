"""Exact shares of the pixels that polygons cover, for many polygons at once."""

from typing import NamedTuple

import numpy as np


class Coverage(NamedTuple):
    """The pixels that polygons cover, one entry per polygon and pixel of its box."""

    polygon: np.ndarray  # (n,) intp: index of the polygon
    row: np.ndarray  # (n,) intp
    column: np.ndarray  # (n,) intp
    share: np.ndarray  # (n,) float64, 0 to 1: of the pixel's area


def pixel_coverage(
    starts: np.ndarray, ends: np.ndarray, polygon: np.ndarray, boxes: np.ndarray, rows: tuple[int, int]
) -> Coverage:
    """Return the share of each pixel that each polygon covers, in the rows `rows[0]` to `rows[1]` - 1.

    An edge of a polygon covers, in its row, the part to the right of it; the parts of all edges, with their signs, sum
    up to the polygon. This is exact for polygons whose rings do not cross (S. Barrett's and R. Levien's accumulation
    for outlines of fonts).

    `starts`, `ends`: (m, 2) float64, the edges, x and y in pixels; outer rings and holes run in opposite directions.
    `polygon`: (m,) intp, of each edge. `boxes`: (polygons, 2) intp: the first column, and the column after the last, of
    each polygon within the image; its edges may lie beside them.
    """
    first, last = rows
    widths = boxes[:, 1] - boxes[:, 0]
    offsets = np.concatenate([[0], np.cumsum((widths + 1) * (last - first))])
    changes = np.zeros(offsets[-1])
    starts, ends, polygon = _clip_to_rows(starts, ends, polygon, first, last)
    # Beside the box, an edge counts as one along its side: to the left it covers the whole row, to the right nothing.
    low, high = boxes[polygon, 0].astype(float), boxes[polygon, 1].astype(float)
    starts, ends, polygon, low, high = _split_at(starts, ends, polygon, low, high)
    column = np.floor((starts[:, 0] + ends[:, 0]) / 2)
    middle = np.clip((starts[:, 0] + ends[:, 0]) / 2, low, high)
    column = np.clip(column, low, high - 1)
    row = np.clip(np.floor((starts[:, 1] + ends[:, 1]) / 2), first, last - 1)  # rounding
    height = ends[:, 1] - starts[:, 1]
    at = (offsets[polygon] + (row - first) * (high - low + 1) + (column - low)).astype(np.intp)
    right = middle - column  # 0 to 1: share of the edge's own pixel that lies to the left of it
    changes += np.bincount(at, height * (1 - right), len(changes))
    changes += np.bincount(at + 1, height * right, len(changes))
    return _accumulated(changes, boxes, widths, first, last)


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
    places, edges = [np.zeros(len(starts)), np.ones(len(starts))], [np.arange(len(starts))] * 2
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
        places.append((line[crossing] - starts[edge[crossing], axis]) / length[crossing])
    place, edge = np.clip(np.concatenate(places), 0, 1), np.concatenate(edges)
    order = np.lexsort((place, edge))
    place, edge = place[order], edge[order]
    piece = np.flatnonzero((edge[1:] == edge[:-1]) & (place[1:] > place[:-1]))
    whole = ends - starts
    begin, end = (starts[edge[piece]] + whole[edge[piece]] * place[index][:, None] for index in (piece, piece + 1))
    owner = edge[piece]
    return begin, end, polygon[owner], low[owner], high[owner]


def _accumulated(changes: np.ndarray, boxes: np.ndarray, widths: np.ndarray, first: int, last: int) -> Coverage:
    """Sum up the changes along each row of each polygon's box."""
    rows = last - first
    lengths = np.repeat(widths + 1, rows)  # one more than the box has: what lies to the right of it
    total = np.cumsum(changes)
    line = np.repeat(np.arange(len(lengths)), lengths)
    line_starts = np.cumsum(lengths) - lengths
    before = np.concatenate([[0.0], total])[line_starts]
    share = np.abs(total - before[line])
    position = np.arange(len(changes)) - line_starts[line]
    owner = line // rows if rows else line
    inside = (position < widths[owner]) & (share > 1e-9)
    owner = owner[inside]
    return Coverage(
        owner, first + line[inside] % rows, boxes[owner, 0] + position[inside], np.minimum(share[inside], 1.0)
    )
