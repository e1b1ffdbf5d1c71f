"""Relates the pixel grids of an event's dates, and resamples one date to the grid of another."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from osgeo import gdal, gdal_array

import config
from rasters.geotiff import IGNORE_AXIS_ORDER, GeoTiff
from rasters.place import Anchor, find_anchor
from utils import EventError, Window, tile

MARGIN = 3  # source pixels around those that a window covers; bilinear interpolation needs one


class Affine(NamedTuple):
    """An affine map of the plane, as GDAL's six numbers: x' = x0 + xx * x + xy * y, y' = y0 + yx * x + yy * y."""

    x0: float
    xx: float
    xy: float
    y0: float
    yx: float
    yy: float

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points; `x`, `y` and the results have the same shape."""
        return self.x0 + self.xx * x + self.xy * y, self.y0 + self.yx * x + self.yy * y

    def after(self, first: "Affine") -> "Affine":
        """Return the map that applies `first`, then this one."""
        linear = np.array([[self.xx, self.xy], [self.yx, self.yy]])
        (xx, xy), (yx, yy) = linear @ [[first.xx, first.xy], [first.yx, first.yy]]
        x0, y0 = linear @ [first.x0, first.y0] + [self.x0, self.y0]
        return Affine(*(float(number) for number in (x0, xx, xy, y0, yx, yy)))

    @property
    def steps(self) -> tuple[float, float]:
        """Lengths, in the grid that is mapped to, of one pixel to the right and one pixel down."""
        return float(np.hypot(self.xx, self.yx)), float(np.hypot(self.xy, self.yy))


@np.errstate(over="ignore", invalid="ignore")  # from the numbers of a damaged header, which _overlaps rejects
def map_to_other_grid(grid: GeoTiff, other: GeoTiff) -> Affine | None:
    """Return the map from pixels of `grid` to pixels of `other`; None if both have one grid (docs/data.md).

    Raises EventError, naming both files, sizes and CRSs, if georeferencing does not relate them.
    """
    anchor, other_anchor = _anchor(grid), _anchor(other)
    if anchor.transform is None or other_anchor.transform is None:
        if grid.shape == other.shape:
            return None
        raise _unrelated(grid, other, "sizes differ, and not both are georeferenced")
    crs, other_crs = anchor.crs, other_anchor.crs
    if crs is not None and other_crs is not None and not crs.IsSame(other_crs, IGNORE_AXIS_ORDER):
        raise _unrelated(grid, other, "CRSs differ")
    transform, other_transform = Affine(*anchor.transform), Affine(*other_anchor.transform)
    to_other = _inverse(other, other_transform).after(transform)
    if grid.shape == other.shape and largest_offset(grid.shape, to_other) <= config.GRID_TOLERANCE:
        return None
    if (crs is None) != (other_crs is None):
        raise _unrelated(grid, other, "grids differ, and only one has a CRS")
    _check_resampling(grid, other, to_other, _inverse(grid, transform).after(other_transform))
    return to_other


def _check_resampling(grid: GeoTiff, other: GeoTiff, to_other: Affine, from_other: Affine) -> None:
    """Raise EventError if one image cannot be resampled to the grid of the other."""
    if any(image.dataset.GetGCPCount() for image in (grid, other)):
        raise _unrelated(grid, other, "grids differ, and ground control points are too inaccurate to resample them")
    if not (_overlaps(grid.shape, other.shape, to_other) and _overlaps(other.shape, grid.shape, from_other)):
        raise _unrelated(grid, other, "they do not overlap")
    if max(*to_other.steps, *from_other.steps) > config.MAX_PIXEL_RATIO:
        raise _unrelated(grid, other, "one's pixels are far larger than the other's")


def _anchor(image: GeoTiff) -> Anchor:
    numbers, anchor = image.georeference.transform, find_anchor(image.georeference)
    if numbers is not None and anchor.transform is None:
        raise EventError(f"{image.path}: invalid geotransform {numbers}; correct it (gdal_edit)")
    return anchor


def _inverse(image: GeoTiff, transform: Affine) -> Affine:
    inverse = gdal.InvGeoTransform(transform)
    if inverse is None:
        raise EventError(f"{image.path}: its transform {tuple(transform)} is not invertible; correct it (gdal_edit)")
    return Affine(*inverse)


def _unrelated(grid: GeoTiff, other: GeoTiff, reason: str) -> EventError:
    described = []
    for image in (grid, other):
        crs = find_anchor(image.georeference).crs
        described.append(f"{image.shape[1]} x {image.shape[0]} in {crs.GetName() if crs else 'no CRS'}")
    return EventError(
        f"{grid.path} and {other.path}: {reason} ({' and '.join(described)}); warp them to one grid (gdalwarp)"
    )


def _corners(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape
    return np.array([0.0, width, 0, width]), np.array([0.0, 0, height, height])


def largest_offset(shape: tuple[int, int], to_other: Affine) -> float:
    """Return the largest distance between the corners of two grids of (H, W) pixels, in pixels of the second."""
    x, y = _corners(shape)
    there_x, there_y = to_other(x, y)
    return float(np.hypot(there_x - x, there_y - y).max())


def _overlaps(shape: tuple[int, int], other_shape: tuple[int, int], to_other: Affine) -> bool:
    """Return whether the bounding box of one grid, along the axes of the other, overlaps the other."""
    return all(
        there.min() < length and there.max() > 0
        for there, length in zip(to_other(*_corners(shape)), reversed(other_shape), strict=True)
    )


def resample(
    read: Callable[[Window], np.ndarray], shape: tuple[int, int], to_source: Affine, window: Window
) -> np.ndarray:
    """Resample a window of a grid from an image on another grid, as `gdalwarp -r bilinear` does.

    Parameters
    ----------
    read
        Function that returns a window of the image, (h, w, C) float32, NaN where it has no data.
    shape
        The image's height and width.
    to_source
        The map from the grid's pixels to the image's.
    window
        Window of the grid to compute.

    Returns
    -------
    (H, W, C) float32, NaN where there is no data. A pixel's value does not depend on the window.

    """
    steps = to_source.steps
    side = max(config.RESAMPLING_SIDE // int(np.ceil(max(*steps, 1))), 16)  # limits the size of a read
    channels = read(Window(0, 0, 1, 1)).shape[2]
    values = np.full((channels, window.height, window.width), np.nan, np.float32)
    for part in tile(window.height, window.width, side):
        there = Window(window.x + part.x, window.y + part.y, part.width, part.height)
        covered = _covered(shape, to_source, there)
        if covered is not None:
            # GDAL writes into `resampled`. The scale is that of the whole image, so that all parts use the same kernel.
            resampled = np.full((channels, part.height, part.width), np.nan, np.float32)
            gdal.Warp(
                _in_memory(resampled, to_source.after(Affine(there.x, 1, 0, there.y, 0, 1))),
                _in_memory(read(covered).transpose(2, 0, 1), Affine(covered.x, 1, 0, covered.y, 0, 1)),
                resampleAlg="bilinear",
                srcNodata="nan",
                dstNodata="nan",
                errorThreshold=0,
                warpOptions=["UNIFIED_SRC_NODATA=YES", f"XSCALE={1 / steps[0]!r}", f"YSCALE={1 / steps[1]!r}"],
            )
            values[(slice(None), *part.slices)] = resampled
    return values.transpose(1, 2, 0)


def _covered(shape: tuple[int, int], to_source: Affine, window: Window) -> Window | None:
    """Return the part of an image that a window of another grid needs; None if it needs none."""
    x, y = _corners((window.height, window.width))
    x, y = to_source(x + window.x, y + window.y)
    margin = MARGIN * int(np.ceil(max(*to_source.steps, 1)))
    first_x, first_y = (max(int(np.floor(there.min())) - margin, 0) for there in (x, y))
    end_x, end_y = (
        min(int(np.ceil(there.max())) + margin, length) for there, length in zip((x, y), reversed(shape), strict=True)
    )
    if first_x >= end_x or first_y >= end_y:
        return None
    return Window(first_x, first_y, end_x - first_x, end_y - first_y)


def _in_memory(values: np.ndarray, transform: Affine) -> gdal.Dataset:
    dataset = gdal_array.OpenArray(np.ascontiguousarray(values))
    dataset.SetGeoTransform(transform)
    return dataset
