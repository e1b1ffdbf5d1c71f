"""Brings rasters and images of any size to the size of a panel in a figure, reading them by bands."""

from collections.abc import Iterator

import numpy as np

from img_io import Image, Pixels, read_window
from rasters.raster import STRIP_ROWS, Raster
from rasters.resize import resize_nearest
from utils import Window


def panel_shape(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of a raster brought to at most `side` pixels a side, in proportion; never enlarged."""
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def shrink_raster(raster: Raster, side: int) -> np.ndarray:
    """A map, label or binary map at the shape of `panel_shape`, by the nearest pixel: no new values arise."""
    return resize_nearest(raster, panel_shape(raster.shape, side))


def shrink_image(image: Image, side: int) -> Pixels:
    """An image at the shape of `panel_shape`: each pixel is the mean of those with data that it stands for."""
    height, width = image.shape
    new_height, new_width = panel_shape(image.shape, side)
    columns = np.arange(new_width) * width // new_width
    rgb = np.zeros((new_height, new_width, 3), np.uint8)
    valid = np.zeros((new_height, new_width), bool)
    for first, end in _row_groups(height, new_height):
        rows = np.arange(first, end + 1) * height // new_height
        pixels = read_window(image, Window(0, int(rows[0]), width, int(rows[-1] - rows[0])))
        has_data = np.ones(pixels.rgb.shape[:2], bool) if pixels.valid is None else pixels.valid
        # Pixels without data are 0 in rgb: they add nothing to the sums.
        sums, counts = (_block_sums(values, rows[:-1] - rows[0], columns) for values in (pixels.rgb, has_data))
        rgb[first:end] = np.rint(sums / np.maximum(counts, 1)[..., None])
        valid[first:end] = counts > 0
    return Pixels(rgb, None if valid.all() else valid)


def _row_groups(height: int, new_height: int) -> Iterator[tuple[int, int]]:
    """First and end of groups of new rows that stand for about STRIP_ROWS rows each."""
    step = max(1, STRIP_ROWS * new_height // height)
    for first in range(0, new_height, step):
        yield first, min(first + step, new_height)


def _block_sums(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sums of blocks, which begin at these rows and columns: (rows, columns) or (rows, columns, channels) uint64."""
    return np.add.reduceat(np.add.reduceat(values, columns, axis=1, dtype=np.uint64), rows, axis=0)
