"""From maps and labels to binary maps, recall, weighted precision and F1 (docs/method.md, section 5)."""

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
        """F1 from recall and precision; 0 where both are 0."""
        total = recall + precision
        return cls(recall, precision, 2 * recall * precision / total if total else 0.0)


@dataclass(frozen=True)
class ChangedPixels:
    """Stage 1's binary map: at or above a threshold where that is positive, else above 0."""

    changes: Raster  # float32
    threshold: np.float32

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.changes.shape

    def read(self, window: Window) -> np.ndarray:
        """The pixels of a window, (h, w) bool."""
        changes = self.changes.read(window)
        return changes >= self.threshold if self.threshold > 0 else changes > 0


def binarize_by_quantile(changes: Raster, quantile: float) -> ChangedPixels:
    """Stage 1's binary map, with the quantile of the whole change map (float32) as its threshold.

    Pixels that are NaN do not count in the quantile, and are not set.
    """
    return ChangedPixels(changes, valid_quantile(changes, quantile))


@dataclass(frozen=True)
class BinaryMap:
    """Stage 2's binary map: a small one whose rows and columns repeat."""

    small: np.ndarray  # bool
    rows: np.ndarray  # (H,) integer, not falling: which row of `small` each row of the map is
    columns: np.ndarray  # (W,) integer, likewise

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return len(self.rows), len(self.columns)

    def read(self, window: Window) -> np.ndarray:
        """The pixels of a window, (h, w) bool."""
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
    """Stage 2's binary map: threshold, closing at a reduced size, small components dropped.

    Parameters
    ----------
    anomalies
        The anomaly map, float32. Pixels that are NaN are not set.
    threshold
        Pixels at or above it count; after min-max scaling of the map to [0, 1] if `normalize` is set.
    area_ratio
        8-connected components of fewer than `int(H * W * area_ratio)` pixels are dropped.
    closing_size, closing_radius
        The closing with a disk of this radius runs on the map brought to a square of this side, nearest-neighbour.

    """
    return SampledMap.of(anomalies, closing_size, normalize).binarize(threshold, area_ratio, closing_radius)


@dataclass(frozen=True)
class SampledMap:
    """An anomaly map at the size that its closing runs at, to be binarised at many thresholds."""

    sample: np.ndarray  # (S, S) float32
    shape: tuple[int, int]  # of the whole map

    @classmethod
    def of(cls, anomalies: Raster, closing_size: int, normalize: bool = False) -> "SampledMap":
        """Sample a map; see `binarize_anomaly_map`."""
        sample = resize_nearest(anomalies, (closing_size, closing_size))
        if normalize:
            low, high = value_range(anomalies)
            sample = (sample - low) / (high - low if high > low else 1)
        return cls(sample, anomalies.shape)

    def binarize(self, threshold: float, area_ratio: float, closing_radius: int) -> BinaryMap:
        """The binary map at a threshold; see `binarize_anomaly_map`."""
        closed = closing((self.sample >= threshold).astype(np.uint8), disk(closing_radius))
        closed[np.isnan(self.sample)] = 0
        height, width = self.shape
        used_rows, rows, row_counts = _nearest_used(len(self.sample), height)
        used_columns, columns, column_counts = _nearest_used(len(self.sample), width)
        # Repeated rows and columns neither join nor split components, so those of the small map are the whole map's.
        components = label_components(closed[np.ix_(used_rows, used_columns)], connectivity=2)  # 8 neighbours
        areas = np.bincount(components.ravel(), weights=np.outer(row_counts, column_counts).ravel())
        large = areas >= int(height * width * area_ratio)
        large[0] = False  # the background
        return BinaryMap(large[components], rows, columns)


def _nearest_used(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels of `nearest_pixels` without repetition, where among these each one is, and how often each is taken."""
    return np.unique(nearest_pixels(old, new), return_inverse=True, return_counts=True)


def score_binary_map(predicted: Raster, scores: Raster, label: Raster, background_weight: float) -> Scores:
    """Recall, weighted precision and F1 of a binary map.

    `predicted`: bool. `scores`: the float32 map it was made from; pixels that are NaN there do not count.
    `label`: integer, where values above 1 are anomalies, everything else background.
    A false positive counts `background_weight` in the precision. Each score is 0 where its denominator is 0.
    """
    positives = true_positives = claims = 0
    for claim, score, truth in zip(read_strips(predicted), read_strips(scores), read_strips(label), strict=True):
        valid = ~np.isnan(score)
        found, anomaly = claim & valid, (truth > 1) & valid
        positives += int(np.count_nonzero(anomaly))
        true_positives += int(np.count_nonzero(found & anomaly))
        claims += int(np.count_nonzero(found))
    return _scores(positives, true_positives, claims, background_weight)


def _scores(positives: float, true_positives: float, claims: float, background_weight: float) -> Scores:
    claimed = true_positives + background_weight * (claims - true_positives)
    return Scores.from_rates(
        true_positives / positives if positives else 0.0, true_positives / claimed if claimed else 0.0
    )


@dataclass(frozen=True)
class PixelCounts:
    """What each pixel of a binary map's small one stands for."""

    valid: np.ndarray  # int64, how many pixels that are not NaN
    anomalous: np.ndarray  # int64, how many of these the label marks

    def flagged(self, binary: BinaryMap) -> int:
        """How many valid pixels a binary map sets, of those that have the same rows and columns."""
        return int(self.valid[binary.small].sum())

    def score(self, binary: BinaryMap, background_weight: float) -> Scores:
        """What `score_binary_map` says of it."""
        found = int(self.anomalous[binary.small].sum())
        return _scores(int(self.anomalous.sum()), found, self.flagged(binary), background_weight)


def count_pixels(binary: BinaryMap, scores: Raster, label: Raster | None) -> PixelCounts:
    """Count the pixels behind each pixel of the small map; without a label none is anomalous."""
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
        """The scores at each threshold: exactly those of `score_binary_map`."""
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
    """Binarise an anomaly map at many thresholds (rising, at least one), and count the pixels in one pass over it.

    All binary maps repeat the same rows and columns of a small one, so pixels are counted once per small pixel.
    See `binarize_anomaly_map` for the other parameters, and `score_binary_map` for the label.
    """
    sampled = SampledMap.of(anomalies, closing_size, normalize)
    maps: list[BinaryMap] = []
    last = -1
    for threshold in thresholds:
        above = int(np.count_nonzero(sampled.sample >= threshold))
        # Where no score lies between two thresholds, they select the same pixels.
        maps.append(maps[-1] if above == last else sampled.binarize(threshold, area_ratio, closing_radius))
        last = above
    return ThresholdCurve(list(thresholds), maps, count_pixels(maps[0], anomalies, label))


def average_scores(scores: list[Scores]) -> Scores:
    """Mean recall, mean precision, and the F1 of these two means. Needs at least one."""
    return Scores.from_rates(float(np.mean([s.recall for s in scores])), float(np.mean([s.precision for s in scores])))
