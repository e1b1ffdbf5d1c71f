"""Stage 2: the anomaly map of one window (docs/method.md, section 4; AnomalyCD, ISPRS 2026)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sam.features import RunLengths, WindowFeatures, region_means

if TYPE_CHECKING:
    from torch import Tensor


def anomaly_map(
    filtered: np.ndarray,
    historical: Sequence[WindowFeatures],
    monitor: WindowFeatures,
    min_region_pixels: int,
    max_region_fraction: float,
    historical_valid: Sequence[np.ndarray | None] | None = None,
    min_date_coverage: float = 0.5,
) -> np.ndarray:
    """Compute how much the changed regions of one window differ from every earlier date.

    Parameters
    ----------
    filtered
        (H, W) float32, the window of the filtered change map. Its regions are the sets of pixels with the same
        non-zero value. NaN where the reference or the monitor image holds no data; these pixels are excluded from the
        regions and from the window's size.
    historical, monitor
        Encoder features of the historical images and of the monitor image of the same window. At least one historical
        image (the reference image) holds data on all pixels that are not NaN in `filtered`.
    min_region_pixels, max_region_fraction
        Regions with fewer pixels, or covering more than this share of the window, are dropped.
    historical_valid
        For each historical image (H, W) bool, where it holds data, or None: everywhere. Default: everywhere.
    min_date_coverage
        A historical image takes part in a region's comparison if it holds data on at least this share of the region's
        pixels, and on at least one. Both features are then averaged over these pixels.

    Returns
    -------
    (H, W) float32 in [0, 2]: `1 - max over dates of cos(historical, monitor)`, not clipped, so rounding can make it
    negative. 0 outside the regions, NaN where `filtered` is NaN.

    """
    invalid = np.isnan(filtered)
    runs = RunLengths.of(np.where(invalid, np.float32(0), filtered))
    values, value_of_run = np.unique(runs.value, return_inverse=True)
    areas = np.bincount(value_of_run, weights=runs.length)
    kept = (values != 0) & (areas >= min_region_pixels) & (areas <= max_region_fraction * np.count_nonzero(~invalid))
    scores = np.zeros(len(values), np.float32)
    if kept.any():
        whole, partial = _split_by_coverage(historical, historical_valid, ~invalid)
        counts = _count_pixels(monitor, runs, values[kept])
        *historical_means, monitor_means = region_means(counts, [*whole, monitor])
        similarity = np.max([cosine_similarity(means, monitor_means) for means in historical_means], axis=0)
        for date, valid in partial:
            counts = _count_pixels(monitor, RunLengths.of(np.where(valid & ~invalid, filtered, 0)), values[kept])
            pixels = counts.sum(dim=1).cpu().numpy()
            covered = (pixels > 0) & (pixels >= min_date_coverage * areas[kept])
            if covered.any():
                means = region_means(counts[np.flatnonzero(covered)], [date, monitor])
                similarity[covered] = np.maximum(similarity[covered], cosine_similarity(*means))
        scores[kept] = 1 - similarity
    anomalies = np.repeat(scores[value_of_run], runs.length).reshape(filtered.shape)
    anomalies[invalid] = np.nan
    return anomalies


def _split_by_coverage(
    historical: Sequence[WindowFeatures], historical_valid: Sequence[np.ndarray | None] | None, valid: np.ndarray
) -> tuple[list[WindowFeatures], list[tuple[WindowFeatures, np.ndarray]]]:
    """Separate the dates that hold data on all `valid` pixels from the others, which keep their masks."""
    whole, partial = [], []
    for date, date_valid in zip(historical, historical_valid or [None] * len(historical), strict=True):
        if date_valid is None or date_valid[valid].all():
            whole.append(date)
        else:
            partial.append((date, date_valid))
    return whole, partial


def _count_pixels(features: WindowFeatures, runs: RunLengths, values: np.ndarray) -> "Tensor":
    """Count the pixels of the regions with these values, sorted, in each feature cell: (regions, cells) float64."""
    region = np.searchsorted(values, runs.value)
    in_region = values[np.minimum(region, len(values) - 1)] == runs.value
    return features.run_counts(runs.at(in_region), region[in_region], len(values))


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, 0 if either is all zeros: (N, C) each to (N,) float64 in [-1, 1]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("nc,nc->n", a, b)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
