"""Reads the bands of an event's dates, and scales scores so that each method's own threshold becomes 0.5."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from skimage.filters import threshold_otsu

from img_io import Image, read_window
from rasters.raster import Raster, strips
from utils import EventError, Window

SAMPLE = 1 << 20  # pixels of an image, at most, from which statistics are computed
THRESHOLD = 0.5  # of every method's scores


@dataclass(frozen=True)
class Scored:
    """A raster of positive numbers `r` as scores `r / (r + threshold)`: 0 to 1, 0.5 at the method's own threshold."""

    numbers: Raster  # float32, 0 or greater, NaN where there is no data
    threshold: float  # above 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.numbers.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the scores of a window, (h, w) float32."""
        numbers = self.numbers.read(window)
        return (numbers / (numbers + np.float32(self.threshold))).astype(np.float32)


def read_bands(image: Image, window: Window) -> np.ndarray:
    """Read red, green and blue of a window, (h, w, 3) float32 from 0 to 255, NaN where there is no data."""
    rgb, valid = read_window(image, window)
    bands = rgb.astype(np.float32)
    if valid is not None:
        bands[~valid] = np.nan
    return bands


def sample_bands(images: Sequence[Image]) -> list[np.ndarray]:
    """Return the bands of every k-th row and column of images of one grid, (n, 3) float64 each.

    Only pixels with data in all of them. Raises EventError if there is none.
    """
    bands = [_sample(images[0].shape, partial(read_bands, image)).astype(np.float64) for image in images]
    valid = np.logical_and.reduce([~np.isnan(values[:, 0]) for values in bands])
    if not valid.any():
        raise EventError(f"{images[-1].path}: no pixel holds data in all dates that are compared")
    return [values[valid] for values in bands]


def otsu_threshold(numbers: Raster) -> float:
    """Return Otsu's threshold of a raster; where all numbers are equal, one that none reaches.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979. Raises EventError if there are no numbers.
    """
    sample = _sample(numbers.shape, numbers.read)
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        raise EventError("no pixel holds data in the dates that are compared")
    return float(threshold_otsu(sample)) if sample.max() > sample.min() else float(sample.max()) + 1


def _sample(shape: tuple[int, int], read: Callable[[Window], np.ndarray]) -> np.ndarray:
    """Return every k-th row and column of what `read` returns, (n,) or (n, bands)."""
    height, width = shape
    step = int(np.ceil(np.sqrt(height * width / SAMPLE)))
    parts = [read(window)[-window.y % step :: step, ::step] for window in strips(shape)]
    return np.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts])
