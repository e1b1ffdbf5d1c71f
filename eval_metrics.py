"""From maps and labels to binary maps, recall, weighted precision and F1 (docs/method.md, section 5)."""

from typing import NamedTuple

import cv2
import numpy as np
from skimage.morphology import closing, disk
from skimage.transform import resize


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


def binarize_by_quantile(change_map: np.ndarray, quantile: float) -> np.ndarray:
    """Stage 1's binary map: at or above the map's quantile where that is positive, else above 0.

    `change_map`: (H, W) float32. Returns (H, W) bool.
    """
    threshold = np.quantile(change_map, quantile)
    return change_map >= threshold if threshold > 0 else change_map > 0


def binarize_anomaly_map(
    anomaly_map: np.ndarray,
    threshold: float,
    area_ratio: float,
    closing_size: int,
    closing_radius: int,
    normalize: bool = False,
) -> np.ndarray:
    """Stage 2's binary map: threshold, closing at a reduced size, small components dropped.

    Parameters
    ----------
    anomaly_map
        (H, W) float32.
    threshold
        Pixels at or above it count; after min-max scaling of the map to [0, 1] if `normalize` is set.
    area_ratio
        8-connected components of fewer than `int(H * W * area_ratio)` pixels are dropped.
    closing_size, closing_radius
        The closing with a disk of this radius runs on the map brought to a square of this side, nearest-neighbour.

    Returns
    -------
    (H, W) bool.

    """
    if normalize:
        low, high = anomaly_map.min(), anomaly_map.max()
        anomaly_map = (anomaly_map - low) / (high - low if high > low else 1)
    height, width = anomaly_map.shape
    binary = (anomaly_map >= threshold).astype(np.uint8)
    closed = closing(resize_nearest(binary, (closing_size, closing_size)), disk(closing_radius))
    full = resize_nearest(closed, (height, width))
    _, components, statistics, _ = cv2.connectedComponentsWithStats(full, connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= int(height * width * area_ratio)
    large[0] = False  # the background
    return large[components]


def resize_nearest(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """`skimage.transform.resize(image, shape, order=0)` (nearest pixel centre), without its float64 copy of the image.

    The published program resizes this way; OpenCV's INTER_NEAREST takes the pixel's corner and differs.
    `image`: (H, W) of any type. Returns `shape`, the same type.
    """
    rows, columns = (
        resize(np.arange(old, dtype=float)[:, None], (new, 1), order=0, preserve_range=True, anti_aliasing=False)
        for old, new in zip(image.shape, shape, strict=True)
    )
    return image[rows.astype(np.intp), columns.astype(np.intp).T]


def score_binary_map(predicted: np.ndarray, label: np.ndarray, background_weight: float) -> Scores:
    """Recall, weighted precision and F1 of a binary map.

    `predicted`: (H, W) bool. `label`: (H, W) integer, where values above 1 are anomalies, everything else background.
    A false positive counts `background_weight` in the precision. Each score is 0 where its denominator is 0.
    """
    anomaly = label > 1
    positives = int(np.count_nonzero(anomaly))
    true_positives = int(np.count_nonzero(predicted & anomaly))
    false_positives = int(np.count_nonzero(predicted)) - true_positives
    claimed = true_positives + background_weight * false_positives
    return Scores.from_rates(
        true_positives / positives if positives else 0.0, true_positives / claimed if claimed else 0.0
    )


def average_scores(scores: list[Scores]) -> Scores:
    """Mean recall, mean precision, and the F1 of these two means. Needs at least one."""
    return Scores.from_rates(float(np.mean([s.recall for s in scores])), float(np.mean([s.precision for s in scores])))
