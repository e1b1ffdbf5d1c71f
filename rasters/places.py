"""Tells where on Earth an event lies, and how large its pixels are, from its georeference."""

from typing import NamedTuple

import numpy as np
from osgeo import gdal, ogr, osr

from evaluation.polygons import ground_area
from rasters.geotiff import Georeference

LATTICE = 5  # points along each side of an event whose longitude and latitude are known


class Place(NamedTuple):
    """Where an event lies; None for what its georeference does not say."""

    crs: str | None = None  # its name
    transform: tuple[float, ...] | None = None  # GDAL's six numbers
    lattice: np.ndarray | None = None  # (5, 5, 2): longitude and latitude of points from corner to corner
    pixel_area: float | None = None  # square metres on the ground, on average

    @property
    def centre(self) -> tuple[float, float] | None:
        """Longitude and latitude of the centre, in degrees."""
        if self.lattice is None:
            return None
        longitude, latitude = self.lattice[LATTICE // 2, LATTICE // 2]
        return float(longitude), float(latitude)


def find_place(georeference: Georeference, shape: tuple[int, int]) -> Place:
    """The place of a raster of this size."""
    numbers = georeference.transform
    if numbers is None and georeference.gcps:
        numbers = gdal.GCPsToGeoTransform(georeference.gcps, True)
    crs = georeference.spatial_reference or georeference.gcp_spatial_reference
    if numbers is None or not np.isfinite(numbers).all():
        return Place(crs=crs and crs.GetName())
    if crs is None:
        return Place(transform=tuple(numbers))
    return Place(crs.GetName(), tuple(numbers), _lattice(crs, numbers, shape), _pixel_area(crs, numbers, shape))


def _pixel_area(crs: osr.SpatialReference, numbers: tuple[float, ...], shape: tuple[int, int]) -> float | None:
    """The area of the whole raster on the ground, by its number of pixels."""
    height, width = shape
    ring = ogr.Geometry(ogr.wkbLinearRing)
    for x, y in ((0, 0), (width, 0), (width, height), (0, height), (0, 0)):
        ring.AddPoint_2D(*gdal.ApplyGeoTransform(numbers, x, y))
    outline = ogr.Geometry(ogr.wkbPolygon)
    outline.AddGeometry(ring)
    area = ground_area(outline, crs)
    return area / (height * width) if area else None


def _lattice(crs: osr.SpatialReference, numbers: tuple[float, ...], shape: tuple[int, int]) -> np.ndarray | None:
    x0, xx, xy, y0, yx, yy = numbers
    rows, columns = np.meshgrid(*(np.linspace(0, length, LATTICE) for length in shape), indexing="ij")
    points = np.stack([x0 + xx * columns + xy * rows, y0 + yx * columns + yy * rows], axis=-1)
    source, target = crs.Clone(), osr.SpatialReference()
    target.ImportFromEPSG(4326)
    for one in (source, target):
        one.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    try:
        there = osr.CoordinateTransformation(source, target).TransformPoints(points.reshape(-1, 2).tolist())
    except RuntimeError:  # a CRS that is not of the Earth, or a place outside of where it is valid
        return None
    lattice = np.array(there)[:, :2].reshape(LATTICE, LATTICE, 2)
    on_earth = np.isfinite(lattice).all() and (np.abs(lattice) <= (180, 90)).all()
    return lattice if on_earth else None
