"""Relates the pixel grids of an event's dates."""

import numpy as np
from osgeo import gdal

import config
from rasters.affine import Affine
from rasters.geotiff import GeoTiff
from rasters.place import Grid, find_grid, same_crs
from utils import EventError


@np.errstate(over="ignore", invalid="ignore")  # from the numbers of a damaged header, which _overlaps rejects
def map_to_other_grid(image: GeoTiff, other: GeoTiff) -> Affine | None:
    """Return the map from pixels of `image` to pixels of `other`; None if both have one grid (docs/data.md).

    Raises EventError, naming both files, sizes and CRSs, if georeferencing does not relate them.
    """
    grid, other_grid = _grid(image), _grid(other)
    if grid is None or other_grid is None:
        if image.shape == other.shape:
            return None
        raise _unrelated(image, other, "sizes differ, and not both are georeferenced")
    if not same_crs(grid.crs, other_grid.crs):
        raise _unrelated(image, other, "CRSs differ")
    to_other = _inverse(other, other_grid).after(grid.transform)
    if grid.shape == other.shape and largest_offset(grid.shape, to_other) <= config.GRID_TOLERANCE:
        return None
    if (grid.crs is None) != (other_grid.crs is None):
        raise _unrelated(image, other, "grids differ, and only one has a CRS")
    _check_resampling(image, other, to_other, _inverse(image, grid).after(other_grid.transform))
    return to_other


def _check_resampling(image: GeoTiff, other: GeoTiff, to_other: Affine, from_other: Affine) -> None:
    """Raise EventError if one image cannot be resampled to the grid of the other."""
    if any(file.dataset.GetGCPCount() for file in (image, other)):
        raise _unrelated(image, other, "grids differ, and ground control points are too inaccurate to resample them")
    if not (_overlaps(image.shape, other.shape, to_other) and _overlaps(other.shape, image.shape, from_other)):
        raise _unrelated(image, other, "they do not overlap")
    if max(*to_other.steps, *from_other.steps) > config.MAX_PIXEL_RATIO:
        raise _unrelated(image, other, "one's pixels are far larger than the other's")


def _grid(image: GeoTiff) -> Grid | None:
    numbers, grid = image.georeference.transform, find_grid(image.georeference, image.shape)
    if numbers is not None and grid is None:
        raise EventError(f"{image.path}: invalid geotransform {numbers}; correct it (gdal_edit)")
    return grid


def _inverse(image: GeoTiff, grid: Grid) -> Affine:
    inverse = gdal.InvGeoTransform(grid.transform)
    if inverse is None:
        raise EventError(
            f"{image.path}: its transform {tuple(grid.transform)} is not invertible; correct it (gdal_edit)"
        )
    return Affine(*inverse)


def _unrelated(image: GeoTiff, other: GeoTiff, reason: str) -> EventError:
    described = []
    for file in (image, other):
        crs = file.georeference.crs
        described.append(f"{file.shape[1]} x {file.shape[0]} in {crs.GetName() if crs else 'no CRS'}")
    return EventError(
        f"{image.path} and {other.path}: {reason} ({' and '.join(described)}); warp them to one grid (gdalwarp)"
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
