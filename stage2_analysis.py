"""Stage 2: the anomaly map of one window (docs/method.md, section 4; AnomalyCD, ISPRS 2026)."""

from collections.abc import Sequence

import numpy as np

from sam.features import RunLengths, WindowFeatures, region_means


def anomaly_map(
    filtered: np.ndarray,
    historical: Sequence[WindowFeatures],
    monitor: WindowFeatures,
    min_region_pixels: int,
    max_region_fraction: float,
) -> np.ndarray:
    """Compute how much the changed regions of one window differ from every earlier date.

    Parameters
    ----------
    filtered
        (H, W) float32, the window of the filtered change map. Its regions are the sets of pixels with the same
        non-zero value. NaN where any image holds no data; these pixels are excluded from the regions and from the
        window's size.
    historical, monitor
        Encoder features of all historical images (at least one) and of the monitor image of the same window.
    min_region_pixels, max_region_fraction
        Regions with fewer pixels, or covering more than this share of the window, are dropped.

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
        number_of_value = np.cumsum(kept) - 1
        of_kept = kept[value_of_run]
        regions = number_of_value[value_of_run[of_kept]]
        counts = monitor.run_counts(runs.at(of_kept), regions, int(kept.sum()))
        *historical_means, monitor_means = region_means(counts, [*historical, monitor])
        similarity = np.max([cosine_similarity(means, monitor_means) for means in historical_means], axis=0)
        scores[kept] = 1 - similarity
    anomalies = np.repeat(scores[value_of_run], runs.length).reshape(filtered.shape)
    anomalies[invalid] = np.nan
    return anomalies


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, 0 if either is all zeros: (N, C) each to (N,) float64 in [-1, 1]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("nc,nc->n", a, b)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
