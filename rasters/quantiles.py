"""Exact quantiles of more values than memory holds, equal bit for bit to NumPy's."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from rasters.raster import Raster, read_strips

HALF = 16  # bits per pass: a histogram of 2**16 bins fits in memory
# For float32 values, NumPy before this release rounds the quantile and the index into the sorted values to float32.
DOUBLE_INDEX = np.lib.NumpyVersion(np.__version__) >= "2.4.0"


def exact_quantile(strips: Callable[[], Iterable[np.ndarray]], quantile: float) -> np.float32:
    """Return `np.quantile` (linear interpolation) of all values from `strips()`, as the installed NumPy computes it.

    `strips`: called twice; yields the same float32 arrays each time, at least one, not empty, of any shape.
    `quantile`: a Python float in [0, 1]. Returns NaN if any value is NaN, and 0 for -0.
    """
    counts = np.zeros(1 << HALF, np.int64)  # of the keys' upper halves
    for strip in strips():
        if np.isnan(strip.max()):
            return np.float32(np.nan)
        counts += _histogram(_keys(strip) >> HALF)
    rank, next_rank, weight = _neighbours(int(counts.sum()), quantile)
    before, after = _values_of_ranks(strips, counts, (rank, next_rank))
    return _interpolate(before, after, weight) + np.float32(0)


def valid_quantile(raster: Raster, quantile: float) -> np.float32:
    """Return the exact quantile of the pixels of a float32 raster that are not NaN; NaN if all are NaN."""

    def valid_strips() -> Iterator[np.ndarray]:
        for strip in read_strips(raster):
            missing = np.isnan(strip)
            if not missing.any():
                yield strip
            elif not missing.all():
                yield strip[~missing]

    if next(valid_strips(), None) is None:
        return np.float32(np.nan)
    return exact_quantile(valid_strips, quantile)


def _keys(values: np.ndarray) -> np.ndarray:
    """Return (N,) uint32 in the order of the float32 values: the sign bit is flipped, in negative ones all bits."""
    bits = np.ravel(values).view(np.uint32)
    return bits ^ ((bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31))


def _value(key: int) -> np.float32:
    bits = key ^ (1 << 31) if key >> 31 else key ^ 0xFFFFFFFF
    return np.uint32(bits).view(np.float32)


def _histogram(halves: np.ndarray) -> np.ndarray:
    return np.bincount(halves, minlength=1 << HALF)


def _neighbours(count: int, quantile: float) -> tuple[int, int, float | np.float32]:
    """Return the ranks of the two sorted values around a quantile, and the weight of the second.

    Equal to NumPy's, including its rounding: beyond 2 ** 24 values a float32 index skips ranks.
    """
    index = (count - 1) * (quantile if DOUBLE_INDEX else np.float32(quantile))
    if index >= type(index)(count - 1):
        return count - 1, count - 1, 0.0
    previous = np.floor(index)
    weight = index - previous
    return int(previous), min(int(previous + 1), count - 1), float(weight) if DOUBLE_INDEX else weight


def _values_of_ranks(
    strips: Callable[[], Iterable[np.ndarray]], counts: np.ndarray, ranks: Sequence[int]
) -> list[np.float32]:
    """Return the values of these ranks (0: the smallest), from the counts of the keys' upper halves."""
    up_to = np.cumsum(counts)
    uppers = [int(np.searchsorted(up_to, rank, side="right")) for rank in ranks]
    lower_counts = {upper: np.zeros(1 << HALF, np.int64) for upper in uppers}
    for strip in strips():
        keys = _keys(strip)
        for upper, lower_count in lower_counts.items():
            lower_count += _histogram(keys[keys >> HALF == upper] & 0xFFFF)
    values = []
    for rank, upper in zip(ranks, uppers, strict=True):
        rank_in_upper = rank - (up_to[upper] - counts[upper])
        lower = int(np.searchsorted(np.cumsum(lower_counts[upper]), rank_in_upper, side="right"))
        values.append(_value(upper << HALF | lower))
    return values


def _interpolate(before: np.float32, after: np.float32, weight: float | np.float32) -> np.float32:
    difference = after - before
    # Start from the nearer value, as NumPy does; the other order rounds differently.
    return after - difference * (1 - weight) if weight >= 0.5 else before + difference * weight
