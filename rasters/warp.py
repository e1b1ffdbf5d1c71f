"""Resamples rasters to another grid, also in another CRS, window by window."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from osgeo import gdal, gdal_array, ogr, osr

import config
from rasters.affine import Affine
from rasters.place import Grid, same_crs, transform_points
from utils import Window, tile

MARGIN = 3  # source pixels around those that a window covers; bilinear interpolation needs one
EDGE_POINTS = 21  # points along each edge of a rectangle that are transformed to another CRS
# Largest error of the positions between different CRSs, in source pixels, gdalwarp's default: exact positions of every
# pixel would take longer than all the rest.
POSITION_ERROR = 0.125
IDENTITY = Affine(0, 1, 0, 0, 0, 1)


class Source(NamedTuple):
    """A raster to resample, on its own grid."""

    read: Callable[[Window], np.ndarray]  # (h, w, C) float32, NaN where there is no data
    grid: Grid


def warp(source: Source, grid: Grid, window: Window, algorithm: str = "bilinear") -> np.ndarray:
    """Resample a window of a grid from a raster on another grid, as `gdalwarp` does. CRSs have x first.

    Parameters
    ----------
    source
        The raster; only the pixels that the window needs are read.
    grid
        The grid.
    window
        Window of the grid to compute.
    algorithm
        `bilinear` or `near`.

    Returns
    -------
    (H, W, C) float32, NaN where there is no data. If both grids have one CRS, a pixel's value does not depend on the
    window.

    """
    steps = pixel_steps(source.grid, grid)
    side = max(config.RESAMPLING_SIDE // int(np.ceil(max(*steps, 1))), 16)  # limits the size of a read
    channels = source.read(Window(0, 0, 1, 1)).shape[2]
    values = np.full((channels, window.height, window.width), np.nan, np.float32)
    for part in tile(window.height, window.width, side):
        part_of_grid = Window(window.x + part.x, window.y + part.y, part.width, part.height)
        covered = covered_window(source.grid, grid, part_of_grid)
        if covered is not None:
            # GDAL writes into `resampled`. The scale is that of the whole image, so that all parts use the same kernel.
            resampled = np.full((channels, part.height, part.width), np.nan, np.float32)
            gdal.Warp(
                _in_memory(resampled, grid, part_of_grid),
                _in_memory(source.read(covered).transpose(2, 0, 1), source.grid, covered),
                resampleAlg=algorithm,
                srcNodata="nan",
                dstNodata="nan",
                errorThreshold=0 if same_crs(source.grid.crs, grid.crs) else POSITION_ERROR,
                warpOptions=["UNIFIED_SRC_NODATA=YES", f"XSCALE={1 / steps[0]!r}", f"YSCALE={1 / steps[1]!r}"],
            )
            values[(slice(None), *part.slices)] = resampled
    return values.transpose(1, 2, 0)


def resample(
    read: Callable[[Window], np.ndarray], shape: tuple[int, int], to_source: Affine, window: Window
) -> np.ndarray:
    """Resample a window of a grid as `warp` does, from an image to whose pixels `to_source` maps the grid's pixels.

    `read`, `shape`: see Source and Grid.
    """
    return warp(Source(read, Grid(None, IDENTITY, shape)), Grid(None, to_source, shape), window)


def _in_memory(values: np.ndarray, grid: Grid, window: Window) -> gdal.Dataset:
    dataset = gdal_array.OpenArray(np.ascontiguousarray(values))
    dataset.SetGeoTransform(grid.transform.after(Affine(window.x, 1, 0, window.y, 0, 1)))
    if grid.crs is not None:
        dataset.SetSpatialRef(grid.crs)
    return dataset


def pixel_steps(other: Grid, grid: Grid) -> tuple[float, float]:
    """Return width and height of a pixel of the grid in pixels of another; in different CRSs, of one in the middle."""
    if same_crs(other.crs, grid.crs):
        return _to_pixels(other).after(grid.transform).steps
    middle_x, middle_y = grid.shape[1] / 2, grid.shape[0] / 2
    x, y = _to_other(other, grid, middle_x + np.array([0, 1, 0.0]), middle_y + np.array([0, 0, 1.0]))
    across, down = float(np.hypot(x[1] - x[0], y[1] - y[0])), float(np.hypot(x[2] - x[0], y[2] - y[0]))
    return (across, down) if np.isfinite([across, down]).all() else (1.0, 1.0)


def covered_window(other: Grid, grid: Grid, window: Window) -> Window | None:
    """Return the part of a raster on another grid that a window needs; None if it needs none."""
    x, y = _to_other(other, grid, *edge_points(*window))
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return None
    margin = MARGIN * int(np.ceil(max(*pixel_steps(other, grid), 1)))
    first_x, first_y = (max(int(np.floor(pixels[known].min())) - margin, 0) for pixels in (x, y))
    end_x, end_y = (
        min(int(np.ceil(pixels[known].max())) + margin, length)
        for pixels, length in zip((x, y), reversed(other.shape), strict=True)
    )
    if first_x >= end_x or first_y >= end_y:
        return None
    return Window(first_x, first_y, end_x - first_x, end_y - first_y)


def edge_points(x: float, y: float, width: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points along the edges of a rectangle, corners included: they bound its image in another CRS."""
    along, ends = np.linspace(0, 1, EDGE_POINTS), (np.zeros(EDGE_POINTS), np.ones(EDGE_POINTS))
    u, v = np.concatenate([along, along, *ends]), np.concatenate([*ends, along, along])
    return x + u * width, y + v * height


def transform_bounds(
    bounds: tuple[float, float, float, float], crs: osr.SpatialReference, other: osr.SpatialReference
) -> tuple[float, float, float, float] | None:
    """Return the bounds, in another CRS, of a rectangle: the least x and y, and the greatest x and y.

    Both CRSs have x first. Returns None where PROJ cannot transform the rectangle's edges.
    """
    left, bottom, right, top = bounds
    x, y = edge_points(left, bottom, right - left, top - bottom)
    points = transform_points(crs, other, np.stack([x, y], axis=1).tolist())
    if points is None or not np.isfinite(points).all():
        return None
    (left, bottom), (right, top) = np.min(points, axis=0).tolist(), np.max(points, axis=0).tolist()
    return left, bottom, right, top


def _to_other(other: Grid, grid: Grid, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of another grid at pixels of a grid; infinite where PROJ cannot transform them."""
    if same_crs(other.crs, grid.crs):
        return _to_pixels(other).after(grid.transform)(x, y)
    points = transform_points(grid.crs, other.crs, np.stack(grid.transform(x, y), axis=1).tolist())
    coordinates = np.full((len(x), 2), np.inf) if points is None else np.array(points)
    return _to_pixels(other)(coordinates[:, 0], coordinates[:, 1])


def _to_pixels(grid: Grid) -> Affine:
    return Affine(*gdal.InvGeoTransform(grid.transform))


def rasterize(outline: ogr.Geometry, grid: Grid, window: Window) -> np.ndarray:
    """Return which pixels of a window lie within an outline in the grid's CRS, (h, w) bool."""
    inside = np.zeros((window.height, window.width), np.uint8)
    layer_source = ogr.GetDriverByName("Memory").CreateDataSource("")
    layer = layer_source.CreateLayer("outline", grid.crs)
    feature = ogr.Feature(layer.GetLayerDefn())
    feature.SetGeometry(outline)
    layer.CreateFeature(feature)
    gdal.RasterizeLayer(_in_memory(inside, grid, window), [1], layer, burn_values=[1])
    return inside.astype(bool)
