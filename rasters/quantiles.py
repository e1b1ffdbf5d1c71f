"""Exact quantiles of more values than memory holds, equal bit for bit to NumPy's."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rasters.raster import Raster, read_strips

# Of the values in order, as `_keys` gives them; the keys beyond are those of NaN.
KEY_OF_INF, KEY_OF_MINUS_INF = np.uint32(0xFF800000), np.uint32(0x007FFFFF)
HALF = 16  # bits per pass: a histogram of 2**16 bins fits in memory
MOST_KEPT = 1 << 20  # keys in memory, so that the values need not be read again
# For float32 values, NumPy before this release rounds the quantile and the index into the sorted values to float32.
DOUBLE_INDEX = np.lib.NumpyVersion(np.__version__) >= "2.4.0"


def exact_quantile(strips: Callable[[], Iterable[np.ndarray]], quantile: float, ignore_nan: bool = False) -> np.float32:
    """Return `np.quantile` (linear interpolation) of all values from `strips()`, as the installed NumPy computes it.

    `strips`: called up to twice; yields the same float32 arrays each time, at least one, not empty, of any shape.
    `quantile`: a Python float in [0, 1]. Returns NaN if any value is NaN, or with `ignore_nan`, if all are; 0 for -0.
    """

    def tallies() -> Iterator[_Tally]:
        for strip in strips():
            tally = _Tally.of(strip)
            yield tally.without_nan() if ignore_nan else tally

    counts = np.zeros(1 << HALF, np.int64)  # of the keys' upper halves
    kept: list[_Tally] = []
    size = 0
    for tally in tallies():
        if tally.is_nan.any():
            return np.float32(np.nan)
        counts += tally.histogram(tally.keys >> HALF)
        size += len(tally.keys)
        kept.append(tally)
        if size > MOST_KEPT:
            kept.clear()
    if not counts.any():
        return np.float32(np.nan)
    rank, next_rank, weight = _neighbours(int(counts.sum()), quantile)
    before, after = _values_of_ranks(kept or tallies(), counts, (rank, next_rank))
    return _interpolate(before, after, weight) + np.float32(0)


def valid_quantile(raster: Raster, quantile: float) -> np.float32:
    """Return the exact quantile of the pixels of a float32 raster that are not NaN; NaN if all are NaN."""
    return exact_quantile(lambda: read_strips(raster), quantile, ignore_nan=True)


class _Tally(NamedTuple):
    """Values of a strip, as keys in the values' order, and how often each occurs in succession."""

    keys: np.ndarray  # (N,) uint32
    counts: np.ndarray | None  # (N,) integer; None: each once

    @classmethod
    def of(cls, strip: np.ndarray) -> "_Tally":
        """Count runs of equal values: scores are constant over regions, so that there are few."""
        bits = np.ravel(strip).view(np.uint32)
        starts = np.flatnonzero(bits[1:] != bits[:-1]) + 1
        if len(starts) > len(bits) // 4:
            return cls(_keys(bits), None)
        starts = np.concatenate([[0], starts])
        return cls(_keys(bits[starts]), np.diff(starts, append=len(bits)))

    @property
    def is_nan(self) -> np.ndarray:
        """(N,) bool: which keys are NaN."""
        return (self.keys > KEY_OF_INF) | (self.keys < KEY_OF_MINUS_INF)

    def at(self, index: np.ndarray) -> "_Tally":
        return _Tally(self.keys[index], None if self.counts is None else self.counts[index])

    def without_nan(self) -> "_Tally":
        is_nan = self.is_nan
        return self.at(~is_nan) if is_nan.any() else self

    def histogram(self, halves: np.ndarray) -> np.ndarray:
        """Count the values by a half of their keys, (1 << HALF,) int64."""
        # As weights, counts are converted to doubles, which hold integers up to 2 ** 53.
        return np.bincount(halves, self.counts, minlength=1 << HALF).astype(np.int64)


def _keys(bits: np.ndarray) -> np.ndarray:
    """Return (N,) uint32 in the order of float32 values: the sign bit is flipped, in negative ones all bits."""
    return bits ^ ((bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31))


def _value(key: int) -> np.float32:
    bits = key ^ (1 << 31) if key >> 31 else key ^ 0xFFFFFFFF
    return np.uint32(bits).view(np.float32)


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


def _values_of_ranks(tallies: Iterable[_Tally], counts: np.ndarray, ranks: Sequence[int]) -> list[np.float32]:
    """Return the values of these ranks (0: the smallest), from the counts of the keys' upper halves."""
    up_to = np.cumsum(counts)
    uppers = [int(np.searchsorted(up_to, rank, side="right")) for rank in ranks]
    lower_counts = {upper: np.zeros(1 << HALF, np.int64) for upper in uppers}
    for tally in tallies:
        uppers_of_keys = tally.keys >> HALF
        for upper, lower_count in lower_counts.items():
            selected = tally.at(uppers_of_keys == upper)
            lower_count += selected.histogram(selected.keys & 0xFFFF)
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
