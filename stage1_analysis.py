"""Stage 1: the continuous change map of one window (docs/method.md, section 3; AnomalyCD, ISPRS 2026)."""

from collections.abc import Sequence

import numpy as np

from regions import WindowFeatures


def change_map(
    reference: WindowFeatures,
    monitor: WindowFeatures,
    reference_masks: Sequence[np.ndarray],
    monitor_masks: Sequence[np.ndarray],
    min_mask_pixels: int,
    max_region_fraction: float,
) -> np.ndarray:
    """How much every pixel's regions changed between the two images of a window.

    Parameters
    ----------
    reference, monitor
        Encoder features of the two images of the same window.
    reference_masks, monitor_masks
        SAM's masks of the two images, (H, W) bool each, in the generator's order. Either may be empty: that image
        then contributes zeros.
    min_mask_pixels, max_region_fraction
        Masks with fewer pixels, or covering more than this share of the window, are dropped.

    Returns
    -------
    (H, W) float32 in [0, 1], 0 where no mask remains: the maximum of the maps painted from either mask set.

    """
    painted = (
        _paint_scores(reference, monitor, masks, min_mask_pixels, max_region_fraction)
        for masks in (reference_masks, monitor_masks)
    )
    return np.maximum(*painted)


def _paint_scores(
    reference: WindowFeatures,
    monitor: WindowFeatures,
    masks: Sequence[np.ndarray],
    min_mask_pixels: int,
    max_region_fraction: float,
) -> np.ndarray:
    painted = np.zeros(reference.window_size, np.float32)
    areas = np.array([np.count_nonzero(mask) for mask in masks], np.int64)
    kept = np.flatnonzero((areas >= min_mask_pixels) & (areas <= max_region_fraction * painted.size))
    largest_first = kept[np.argsort(-areas[kept], kind="stable")]  # equal areas keep the generator's order
    if not len(largest_first):
        return painted
    regions = [masks[index] for index in largest_first]
    counts = reference.mask_counts(regions)
    scores = change_scores(reference.region_means(counts), monitor.region_means(counts))
    for mask, score in zip(regions, scores, strict=True):
        painted[mask] = score  # smaller masks overwrite larger ones
    return painted


def change_scores(reference_means: np.ndarray, monitor_means: np.ndarray) -> np.ndarray:
    """`1 - r.m / (|r||m| + 1e-8)` of each pair of rows, clipped to [0, 1]. (N, C) each; returns (N,) float64."""
    products = np.einsum("nc,nc->n", reference_means, monitor_means)
    norms = np.linalg.norm(reference_means, axis=1) * np.linalg.norm(monitor_means, axis=1)
    return np.clip(1 - products / (norms + 1e-8), 0, 1)
