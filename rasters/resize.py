"""Resizes rasters by the nearest pixel, strip by strip, and finds their range of values."""

import numpy as np
from skimage.transform import resize

from rasters.raster import Raster, read_strips, strips


def value_range(raster: Raster) -> tuple[np.float32, np.float32]:
    """Return the least and the greatest value that is not NaN; inf and -inf if all are NaN."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for strip in read_strips(raster):
        low, high = np.fmin(low, np.fmin.reduce(strip, axis=None)), np.fmax(high, np.fmax.reduce(strip, axis=None))
    return low, high


def resize_nearest(raster: Raster, shape: tuple[int, int]) -> np.ndarray:
    """Resize as `skimage.transform.resize(raster, shape, order=0)` does (nearest pixel centre), but read in strips.

    The published program resizes this way; OpenCV's INTER_NEAREST uses the pixel's corner and gives other results.
    Returns an array of `shape`, of the raster's type.
    """
    rows, columns = (nearest_pixels(old, new) for old, new in zip(raster.shape, shape, strict=True))
    parts = []
    for window in strips(raster.shape):
        first, end = np.searchsorted(rows, (window.y, window.y + window.height))
        if first < end:
            parts.append(raster.read(window)[np.ix_(rows[first:end] - window.y, columns)])
    return np.concatenate(parts)


def nearest_pixels(old: int, new: int) -> np.ndarray:
    """Return the index among `old` pixels nearest to each of `new` pixels along a side: (new,) intp, not decreasing."""
    pixels = np.arange(old, dtype=float)[:, None]
    nearest = resize(pixels, (new, 1), order=0, preserve_range=True, anti_aliasing=False)
    return nearest[:, 0].astype(np.intp)
