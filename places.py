"""Tells where on Earth an event lies, and how large its pixels are, from its georeference."""

from typing import NamedTuple

import numpy as np
from osgeo import gdal, osr

from gdal_files import Georeference

LATTICE = 5  # points along each side of an event whose longitude and latitude are known
WEB_MERCATORS = ("Popular_Visualisation_Pseudo_Mercator", "Mercator_1SP", "Mercator_2SP")


class Place(NamedTuple):
    """Where an event lies; None for what its georeference does not say."""

    crs: str | None = None  # its name
    transform: tuple[float, ...] | None = None  # GDAL's six numbers
    lattice: np.ndarray | None = None  # (5, 5, 2): longitude and latitude of points from corner to corner
    pixel_area: float | None = None  # square metres; None where the CRS does not keep areas in metres

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
    return Place(crs.GetName(), tuple(numbers), _lattice(crs, numbers, shape), _pixel_area(crs, numbers))


def _pixel_area(crs: osr.SpatialReference, numbers: tuple[float, ...]) -> float | None:
    if not crs.IsProjected() or crs.GetAttrValue("PROJECTION") in WEB_MERCATORS:
        return None  # a metre of these is no metre on the ground
    _, xx, xy, _, yx, yy = numbers
    return abs(xx * yy - xy * yx) * crs.GetLinearUnits() ** 2


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
