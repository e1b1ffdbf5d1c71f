"""Stage 1: the continuous change map of one window (docs/method.md, section 3; AnomalyCD, ISPRS 2026)."""

from collections.abc import Sequence

import numpy as np

from sam.features import WindowFeatures, region_means
from sam.masks import Mask


def change_map(
    reference: WindowFeatures,
    monitor: WindowFeatures,
    reference_masks: Sequence[Mask],
    monitor_masks: Sequence[Mask],
    min_mask_pixels: int,
    max_region_fraction: float,
    valid: np.ndarray | None = None,
    tolerance: int = 0,
) -> np.ndarray:
    """Compute how much the regions of each pixel changed between the two images of a window.

    Parameters
    ----------
    reference, monitor
        Encoder features of the two images of the same window.
    reference_masks, monitor_masks
        SAM's masks of the two images, in the generator's order. An image without masks contributes zeros.
    min_mask_pixels, max_region_fraction
        Masks with fewer pixels, or covering more than this share of the window, are dropped.
    valid
        (H, W) bool, True where both images hold data (at least one pixel); None: everywhere. Other pixels are excluded
        from the masks and from the window's size.
    tolerance
        A region is compared with its best match within so many feature cells in the other image.

    Returns
    -------
    (H, W) float32 in [0, 1]: the pixel-wise maximum of the maps painted from the two mask sets. 0 outside of all
    remaining masks, NaN where there is no data.

    """
    pixels = reference.window_size[0] * reference.window_size[1]
    if valid is not None:
        pixels = int(np.count_nonzero(valid))
        reference_masks, monitor_masks = (
            [mask.within(valid) for mask in masks] for masks in (reference_masks, monitor_masks)
        )
    most_pixels = max_region_fraction * pixels
    kept = [_largest_first(masks, min_mask_pixels, most_pixels) for masks in (reference_masks, monitor_masks)]
    counts, first = reference.mask_counts(kept[0] + kept[1]), len(kept[0])
    before, after = region_means(counts, [reference, monitor])
    scores = change_scores(before, after)
    for moved in zip(reference.moved(tolerance), monitor.moved(tolerance), strict=True):
        moved_before, moved_after = region_means(counts, moved)
        np.minimum(scores[:first], change_scores(before, moved_after)[:first], out=scores[:first])
        np.minimum(scores[first:], change_scores(moved_before, after)[first:], out=scores[first:])
    changes = _paint(kept[0], scores[:first], reference.window_size)
    np.maximum(changes, _paint(kept[1], scores[first:], reference.window_size), out=changes)
    if valid is not None:
        changes[~valid] = np.nan
    return changes


def _largest_first(masks: Sequence[Mask], fewest_pixels: int, most_pixels: float) -> list[Mask]:
    kept = [mask for mask in masks if max(fewest_pixels, 1) <= mask.area <= most_pixels]
    return sorted(kept, key=lambda mask: -mask.area)  # equal areas keep the generator's order


def _paint(masks: list[Mask], scores: np.ndarray, window_size: tuple[int, int]) -> np.ndarray:
    painted = np.zeros(window_size, np.float32)
    for mask, score in zip(masks, scores, strict=True):
        painted[mask.box.slices][mask.pixels] = score  # smaller masks overwrite larger ones
    return painted


def change_scores(reference_means: np.ndarray, monitor_means: np.ndarray) -> np.ndarray:
    """Return `1 - r.m / (|r||m| + 1e-8)` of each pair of rows, clipped to [0, 1]: (N, C) each to (N,) float64.

    >>> means = np.array([[1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    >>> change_scores(means, np.array([[2.0, 0.0], [0.0, 5.0], [4.0, 3.0]])).round(3)
    array([0.  , 1.  , 0.04])

    """
    products = np.einsum("nc,nc->n", reference_means, monitor_means)
    norms = np.linalg.norm(reference_means, axis=1) * np.linalg.norm(monitor_means, axis=1)
    return np.clip(1 - products / (norms + 1e-8), 0, 1)
