"""Lays the pixel grid of an event over its box: in the monitor image's CRS, or in the UTM zone."""

import math

from osgeo import osr

from catalogs.query import Box
from catalogs.remote import RemoteImage, grid_of
from rasters.affine import Affine
from rasters.place import Grid, epsg_crs, named_crs, pixel_metres, same_crs, wgs84
from rasters.warp import transform_bounds
from utils import EventError, UsageError

COARSE_SIDE = 256  # longer side of the grid on which clouds and coverage are measured, pixels
ON_GRID = 1e-3  # pixels; coordinates that lie nearer to a pixel's edge count as on it


def coarse_grid(box: Box) -> Grid:
    """Return a grid over a box for measuring, in the UTM zone of its centre."""
    crs = utm_zone(box)
    left, bottom, right, top = _extent(box, crs)
    step = max(right - left, top - bottom) / COARSE_SIDE
    return _grid(crs, (left, bottom, right, top), step, (left, top))


def event_grid(box: Box, monitor: RemoteImage, crs: osr.SpatialReference | None, resolution: float | None) -> Grid:
    """Return the grid of an event.

    Parameters
    ----------
    box
        The place.
    monitor
        The monitor image at full resolution; its pixels are kept as they are if CRS and resolution are its own.
    crs
        CRS of the grid; None: that of the monitor image, or UTM if that is not in metres.
    resolution
        Side of a pixel in metres; None: that of the monitor image.

    """
    own = grid_of(monitor)
    assert own.crs is not None
    if crs is None:
        crs = own.crs if _is_in_metres(own.crs) else utm_zone(box)
    elif not _is_in_metres(crs):
        raise UsageError(f"--crs: {crs.GetName()} is not projected in metres; name a projected CRS, as EPSG:32633")
    keeps_crs = same_crs(crs, own.crs)
    side = abs(own.transform.xx)
    is_plain = own.transform.xy == own.transform.yx == 0 and math.isclose(side, abs(own.transform.yy))
    corner = (own.transform.x0, own.transform.y0)
    if keeps_crs and is_plain and (resolution is None or math.isclose(resolution, side, rel_tol=1e-6)):
        return _grid(crs, _extent(box, crs), side, corner)
    if resolution is None:
        resolution = pixel_metres(monitor.georeference, monitor.shape)
        if resolution is None:
            raise EventError(f"{monitor.path}: the size of its pixels is not known; name a --resolution")
    return _grid(crs, _extent(box, crs), resolution, (0.0, 0.0))


def _is_in_metres(crs: osr.SpatialReference) -> bool:
    return bool(crs.IsProjected()) and math.isclose(crs.GetLinearUnits(), 1.0)


def _grid(
    crs: osr.SpatialReference, extent: tuple[float, float, float, float], step: float, corner: tuple[float, float]
) -> Grid:
    """Return the grid with square pixels of `step` that covers an extent and has a pixel's corner at `corner`."""
    left, bottom, right, top = extent
    first_x = math.floor((left - corner[0]) / step + ON_GRID)
    first_y = math.floor((corner[1] - top) / step + ON_GRID)
    width = math.ceil((right - corner[0]) / step - ON_GRID) - first_x
    height = math.ceil((corner[1] - bottom) / step - ON_GRID) - first_y
    transform = Affine(corner[0] + first_x * step, step, 0.0, corner[1] - first_y * step, 0.0, -step)
    return Grid(crs, transform, (max(height, 1), max(width, 1)))


def _extent(box: Box, crs: osr.SpatialReference) -> tuple[float, float, float, float]:
    """Return the least and greatest coordinates of a box in a CRS. Raises EventError outside of the CRS."""
    extent = transform_bounds(box, wgs84(), crs)
    if extent is None:
        raise EventError(f"the box cannot be transformed to {crs.GetName()}; name another --crs")
    return extent


def utm_zone(box: Box) -> osr.SpatialReference:
    """Return the UTM zone of a box's centre. Raises UsageError near the poles."""
    longitude, latitude = (box.west + box.east) / 2, (box.south + box.north) / 2
    if abs(latitude) > 84:
        raise UsageError("the box lies beyond 84 degrees, where there is no UTM; name a --crs")
    return epsg_crs((32600 if latitude >= 0 else 32700) + min(int((longitude + 180) // 6), 59) + 1)


def parse_crs(text: str) -> osr.SpatialReference:
    """Return the CRS that a user named, as in `EPSG:32633`. Raises UsageError if PROJ does not know it."""
    crs = named_crs(text)
    if crs is None:
        raise UsageError(f"--crs {text}: unknown; name a projected CRS, as EPSG:32633")
    return crs
