"""Relates the pixel grids of an event's dates."""

import numpy as np
from osgeo import gdal

import config
from rasters.affine import Affine
from rasters.geotiff import GeoTiff
from rasters.place import Anchor, find_anchor, same_crs
from utils import EventError


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
    if not same_crs(crs, other_crs):
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
        pixels.min() < length and pixels.max() > 0
        for pixels, length in zip(to_other(*_corners(shape)), reversed(other_shape), strict=True)
    )
