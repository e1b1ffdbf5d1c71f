"""Binarizes maps and computes recall, weighted precision and F1 (docs/method.md, section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from skimage.measure import label as label_components
from skimage.morphology import closing, disk

from rasters.quantiles import valid_quantile
from rasters.raster import Raster, read_strips, strips
from rasters.resize import nearest_pixels, resize_nearest, value_range
from utils import Window


class Scores(NamedTuple):
    """Recall, weighted precision and their harmonic mean, each in [0, 1]."""

    recall: float
    precision: float
    f1: float

    @classmethod
    def from_rates(cls, recall: float, precision: float) -> "Scores":
        """Compute F1 from recall and precision; 0 if both are 0."""
        total = recall + precision
        return cls(recall, precision, 2 * recall * precision / total if total else 0.0)


@dataclass(frozen=True)
class ChangedPixels:
    """Stage 1's binary map: pixels at or above the threshold if it is positive, else pixels above 0."""

    changes: Raster  # float32
    threshold: np.float32

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.changes.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w) bool."""
        changes = self.changes.read(window)
        return changes >= self.threshold if self.threshold > 0 else changes > 0


def binarize_by_quantile(changes: Raster, quantile: float) -> ChangedPixels:
    """Return stage 1's binary map; its threshold is the quantile of the whole change map (float32).

    NaN pixels do not count in the quantile and are not set.
    """
    return ChangedPixels(changes, valid_quantile(changes, quantile))


@dataclass(frozen=True)
class BinaryMap:
    """Stage 2's binary map, stored as a small map whose rows and columns are repeated."""

    small: np.ndarray  # bool
    rows: np.ndarray  # (H,) integer, not decreasing: the row of `small` for each row of the map
    columns: np.ndarray  # (W,) integer, not decreasing: the column of `small` for each column

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return len(self.rows), len(self.columns)

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w) bool."""
        rows, columns = window.slices
        return self.small[np.ix_(self.rows[rows], self.columns[columns])]


def binarize_anomaly_map(
    anomalies: Raster,
    threshold: float,
    area_ratio: float,
    closing_size: int,
    closing_radius: int,
    normalize: bool = False,
) -> BinaryMap:
    """Return stage 2's binary map: apply a threshold, close at a reduced size, drop small components.

    Parameters
    ----------
    anomalies
        The anomaly map, float32. NaN pixels are not set.
    threshold
        Pixels at or above it are positive. With `normalize`, the map is first min-max scaled to [0, 1].
    area_ratio
        8-connected components of fewer than `int(H * W * area_ratio)` pixels are dropped. 0 or more.
    closing_size, closing_radius
        Side of the square that the map is resized to for the closing (nearest neighbour), and radius of the closing's
        disk, pixels.

    """
    return SampledMap.of(anomalies, closing_size, normalize).binarize(threshold, area_ratio, closing_radius)


@dataclass(frozen=True)
class SampledMap:
    """An anomaly map resized for the closing, to be binarized at many thresholds."""

    sample: np.ndarray  # (S, S) float32
    shape: tuple[int, int]  # of the whole map

    @classmethod
    def of(cls, anomalies: Raster, closing_size: int, normalize: bool = False) -> "SampledMap":
        """Resize a map; see `binarize_anomaly_map`."""
        sample = resize_nearest(anomalies, (closing_size, closing_size))
        if normalize:
            low, high = value_range(anomalies)
            sample = (sample - low) / (high - low if high > low else 1)
        return cls(sample, anomalies.shape)

    def binarize(self, threshold: float, area_ratio: float, closing_radius: int) -> BinaryMap:
        """Return the binary map at a threshold; see `binarize_anomaly_map`."""
        closed = closing((self.sample >= threshold).astype(np.uint8), disk(closing_radius))
        closed[np.isnan(self.sample)] = 0
        height, width = self.shape
        used_rows, rows, row_counts = _nearest_used(len(self.sample), height)
        used_columns, columns, column_counts = _nearest_used(len(self.sample), width)
        # Repeating rows and columns does not join or split components: the small map has those of the whole map.
        components = label_components(closed[np.ix_(used_rows, used_columns)], connectivity=2)  # 8 neighbours
        areas = np.bincount(components.ravel(), weights=np.outer(row_counts, column_counts).ravel())
        large = areas >= np.floor(height * width * area_ratio)
        large[0] = False  # the background
        return BinaryMap(large[components], rows, columns)


def _nearest_used(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct pixels of `nearest_pixels`, the index of each pixel among them, and their counts."""
    return np.unique(nearest_pixels(old, new), return_inverse=True, return_counts=True)


def score_binary_map(predicted: Raster, scores: Raster, label: Raster, background_weight: float) -> Scores:
    """Compute recall, weighted precision and F1 of a binary map.

    `predicted`: bool. `scores`: the float32 map that it was made from; pixels that are NaN there do not count.
    `label`: integer; values above 1 are anomalies, all others background.
    A false positive counts `background_weight` in the precision. Each score is 0 if its denominator is 0.
    """
    positives = true_positives = flagged = 0
    for flagged_pixels, score, truth in zip(
        read_strips(predicted), read_strips(scores), read_strips(label), strict=True
    ):
        valid = ~np.isnan(score)
        found, anomaly = flagged_pixels & valid, (truth > 1) & valid
        positives += int(np.count_nonzero(anomaly))
        true_positives += int(np.count_nonzero(found & anomaly))
        flagged += int(np.count_nonzero(found))
    return _scores(positives, true_positives, flagged, background_weight)


def _scores(positives: float, true_positives: float, flagged: float, background_weight: float) -> Scores:
    weighted_flagged = true_positives + background_weight * (flagged - true_positives)
    return Scores.from_rates(
        true_positives / positives if positives else 0.0, true_positives / weighted_flagged if weighted_flagged else 0.0
    )


@dataclass(frozen=True)
class PixelCounts:
    """The numbers of full-size pixels that each pixel of a binary map's small map represents."""

    valid: np.ndarray  # int64: pixels that are not NaN
    anomalous: np.ndarray  # int64: those of them that the label marks

    def flagged(self, binary: BinaryMap) -> int:
        """Return the number of valid pixels set in a binary map that has the rows and columns of the counted one."""
        return int(self.valid[binary.small].sum())

    def score(self, binary: BinaryMap, background_weight: float) -> Scores:
        """Return the scores that `score_binary_map` gives for a binary map."""
        found = int(self.anomalous[binary.small].sum())
        return _scores(int(self.anomalous.sum()), found, self.flagged(binary), background_weight)


def count_pixels(binary: BinaryMap, scores: Raster, label: Raster | None) -> PixelCounts:
    """Count the full-size pixels per pixel of the small map; without a label, none is anomalous."""
    counts = np.zeros((2, *binary.small.shape), np.int64)
    first_columns = np.searchsorted(binary.columns, np.arange(binary.small.shape[1]))
    for window in strips(binary.shape):
        valid = ~np.isnan(scores.read(window))
        rows = binary.rows[window.slices[0]]
        kinds = (valid,) if label is None else (valid, valid & (label.read(window) > 1))
        for count, pixels in zip(counts, kinds, strict=False):
            np.add.at(count, rows, np.add.reduceat(pixels, first_columns, axis=1, dtype=np.int64))
    return PixelCounts(*counts)


@dataclass(frozen=True)
class ThresholdCurve:
    """Stage 2's binary map at many thresholds."""

    thresholds: list[float]
    maps: list[BinaryMap]  # one per threshold, all with the same rows and columns
    counts: PixelCounts

    @property
    def flagged(self) -> list[int]:
        """The number of valid pixels that are set at each threshold."""
        return [self.counts.flagged(binary) for binary in self.maps]

    def scores(self, background_weight: float) -> list[Scores]:
        """Return the scores at each threshold; they equal those of `score_binary_map`."""
        return [self.counts.score(binary, background_weight) for binary in self.maps]


def threshold_curve(
    anomalies: Raster,
    label: Raster | None,
    thresholds: Sequence[float],
    area_ratio: float,
    closing_size: int,
    closing_radius: int,
    normalize: bool = False,
) -> ThresholdCurve:
    """Binarize an anomaly map at many thresholds (ascending, at least one), and count its pixels in one pass.

    All binary maps repeat the same rows and columns of a small map, so the pixels are counted once for all thresholds.
    See `binarize_anomaly_map` for the other parameters, and `score_binary_map` for the label.
    """
    sampled = SampledMap.of(anomalies, closing_size, normalize)
    maps: list[BinaryMap] = []
    last = -1
    for threshold in thresholds:
        above = int(np.count_nonzero(sampled.sample >= threshold))
        # If no score lies between two thresholds, both select the same pixels.
        maps.append(maps[-1] if above == last else sampled.binarize(threshold, area_ratio, closing_radius))
        last = above
    return ThresholdCurve(list(thresholds), maps, count_pixels(maps[0], anomalies, label))


def average_scores(scores: list[Scores]) -> Scores:
    """Return the mean recall, the mean precision, and the F1 of these two means. Needs at least one item."""
    return Scores.from_rates(float(np.mean([s.recall for s in scores])), float(np.mean([s.precision for s in scores])))
