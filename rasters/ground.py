"""Tells how large an event is on the ground, from its georeference, and how long a scale bar should be."""

import math

from osgeo import gdal, osr

from rasters.geotiff import Georeference

# The WGS 84 ellipsoid: semi-major axis in metres, squared eccentricity.
AXIS, ECCENTRICITY2 = 6_378_137.0, 6.69437999014e-3


def pixel_metres(georeference: Georeference, shape: tuple[int, int]) -> float | None:
    """The width of a pixel in the middle of an image of (H, W) pixels, in metres on the ground.

    None where the image does not say where it lies: without a CRS, without a transform, or outside of its CRS. The
    length is that on the ellipsoid, so that degrees, feet and the stretched metres of Web Mercator come out right.
    """
    transform = georeference.transform
    crs = georeference.spatial_reference
    if transform is None and georeference.gcps:
        transform, crs = gdal.GCPsToGeoTransform(georeference.gcps, True), georeference.gcp_spatial_reference
    if transform is None or crs is None or crs.IsLocal():
        return None
    height, width = shape
    ends = [gdal.ApplyGeoTransform(transform, x, height / 2) for x in (width / 4, width * 3 / 4)]
    wgs84 = osr.SpatialReference()
    wgs84.ImportFromEPSG(4326)
    source = crs.Clone()
    for reference in (wgs84, source):
        reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    try:
        (x0, y0, _), (x1, y1, _) = osr.CoordinateTransformation(source, wgs84).TransformPoints(ends)
    except RuntimeError:
        return None
    if not max(abs(y0), abs(y1)) <= 90:  # infinite where PROJ knows no way, or no latitude to begin with
        return None
    return _distance(x0, y0, x1, y1) / (width / 2) or None


def _distance(x0: float, y0: float, x1: float, y1: float) -> float:
    """Metres between two longitudes and latitudes in degrees, which lie so close that the ground is flat."""
    latitude = math.radians((y0 + y1) / 2)
    bend = 1 - ECCENTRICITY2 * math.sin(latitude) ** 2
    east = math.radians((x1 - x0 + 180) % 360 - 180) * AXIS / math.sqrt(bend) * math.cos(latitude)
    north = math.radians(y1 - y0) * AXIS * (1 - ECCENTRICITY2) / bend**1.5
    return math.hypot(east, north)


def bar_length(metres: float) -> float:
    """The greatest of 1, 2 and 5 times a power of ten that is no longer than `metres`, for a scale bar."""
    power = 10.0 ** math.floor(math.log10(metres))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= metres * (1 + 1e-9))


def length_text(metres: float) -> str:
    """A length with its unit, as in `200 m` or `1.5 km`."""
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
