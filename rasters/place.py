"""Locates rasters on the ground: grid, CRS, longitude and latitude, pixel sizes and areas."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from osgeo import gdal, ogr, osr

from rasters.affine import Affine
from rasters.geotiff import IGNORE_AXIS_ORDER, Georeference

LATTICE = 5  # points along each side of a raster at which longitude and latitude are computed


class Grid(NamedTuple):
    """A pixel grid on the ground."""

    crs: osr.SpatialReference | None  # None: not known
    transform: Affine  # from pixels to coordinates; finite
    shape: tuple[int, int]  # height and width


def find_grid(georeference: Georeference, shape: tuple[int, int]) -> Grid | None:
    """Return the grid of a raster of (H, W) pixels; without a transform, by the affine fit of its control points.

    Returns None if neither gives a finite transform.
    """
    numbers = georeference.transform
    if numbers is None and georeference.gcps:
        numbers = gdal.GCPsToGeoTransform(georeference.gcps, True)
    if numbers is None or not np.isfinite(numbers).all():
        return None
    return Grid(georeference.crs, Affine(*numbers), shape)


class Place(NamedTuple):
    """Location of an event; a field is None if the georeference does not give it."""

    crs: str | None = None  # name of the CRS
    transform: Affine | None = None  # from pixels to coordinates
    lattice: np.ndarray | None = None  # (5, 5, 2): longitude and latitude in degrees, from corner to corner
    pixel_area: float | None = None  # average on the ground, in square metres

    @property
    def centre(self) -> tuple[float, float] | None:
        """Longitude and latitude of the centre, in degrees."""
        if self.lattice is None:
            return None
        longitude, latitude = self.lattice[LATTICE // 2, LATTICE // 2]
        return float(longitude), float(latitude)


def find_place(georeference: Georeference, shape: tuple[int, int]) -> Place:
    """Return the place of a raster of (H, W) pixels."""
    grid, name = find_grid(georeference, shape), georeference.crs and georeference.crs.GetName()
    if grid is None or grid.crs is None:
        return Place(name, grid and grid.transform)
    area = ground_area(raster_outline(grid), grid.crs)
    return Place(name, grid.transform, _lattice(grid), area / (shape[0] * shape[1]) if area else None)


def raster_outline(grid: Grid, pieces: int = 1) -> ogr.Geometry:
    """Return the outline of a grid in its coordinates, with each side in so many pieces."""
    height, width = grid.shape
    corners = [(0, 0), (width, 0), (width, height), (0, height), (0, 0)]
    ring = ogr.Geometry(ogr.wkbLinearRing)
    for begin, end in pairwise(corners):
        for x, y in np.linspace(begin, end, pieces, endpoint=False).tolist():
            ring.AddPoint_2D(*gdal.ApplyGeoTransform(grid.transform, x, y))
    ring.CloseRings()
    outline = ogr.Geometry(ogr.wkbPolygon)
    outline.AddGeometry(ring)
    return outline


def _lattice(grid: Grid) -> np.ndarray | None:
    """Return longitude and latitude of evenly spaced points, see Place; None where PROJ cannot transform them."""
    assert grid.crs is not None
    rows, columns = np.meshgrid(*(np.linspace(0, length, LATTICE) for length in grid.shape), indexing="ij")
    points = np.stack(grid.transform(columns, rows), axis=-1)
    degrees = transform_points(x_first(grid.crs.Clone()), wgs84(), points.reshape(-1, 2).tolist())
    if degrees is None:
        return None
    lattice = np.array(degrees).reshape(LATTICE, LATTICE, 2)
    on_earth = np.isfinite(lattice).all() and (np.abs(lattice) <= (180, 90)).all()
    return lattice if on_earth else None


def pixel_metres(georeference: Georeference, shape: tuple[int, int]) -> float | None:
    """Return the width of a pixel in the middle of an image of (H, W) pixels, in metres on the ground.

    In a local CRS, coordinates are lengths. In any other CRS, the width is measured on the ellipsoid, so that it is
    also right for degrees, feet and the stretched metres of Web Mercator. Returns None without a transform or CRS, and
    outside of the area where the CRS is valid.
    """
    grid = find_grid(georeference, shape)
    if grid is None:
        return None
    height, width = shape
    line = ogr.Geometry(ogr.wkbLineString)
    for x in (width / 4, width * 3 / 4):
        line.AddPoint_2D(*gdal.ApplyGeoTransform(grid.transform, x, height / 2))
    measured = measured_on_ground(line, grid.crs)
    if measured is None:
        return None
    on_ground, unit = measured
    length = float(on_ground.Length()) * unit
    return length / (width / 2) if 0 < length < math.inf else None


def transform_points(
    crs: osr.SpatialReference, other: osr.SpatialReference, points: Sequence[Sequence[float]]
) -> list[tuple[float, float]] | None:
    """Return points (x, y) in another CRS, both with x first; None where PROJ cannot transform them."""
    try:
        transformed = osr.CoordinateTransformation(crs, other).TransformPoints(list(points))
    except RuntimeError:  # a CRS that is not of the Earth, or a point outside of the CRS's valid area
        return None
    return [(x, y) for x, y, *_ in transformed]


def ground_area(outline: ogr.Geometry, crs: osr.SpatialReference | None) -> float | None:
    """Return the area of an outline on the ground, in square metres; None without a CRS that PROJ can use."""
    return ground_areas([outline], crs)[0]


def ground_areas(outlines: Sequence[ogr.Geometry], crs: osr.SpatialReference | None) -> list[float | None]:
    """Return the areas of outlines that lie close together on the ground, such as those of one image.

    Uses one projection around all of them, since making one takes longer than using it a thousand times.
    """
    together = ogr.Geometry(ogr.wkbGeometryCollection)
    for outline in outlines:
        together.AddGeometry(outline)
    measured = measured_on_ground(together, crs) if outlines else None
    if measured is None:
        return [None] * len(outlines)
    on_ground, unit = measured
    return [float(outline.GetArea()) * unit**2 for outline in on_ground]


def area_text(square_metres: float) -> str:
    """Format an area in m², or in km² from 1 km² on."""
    return f"{square_metres / 1e6:,.2f} km²" if square_metres >= 1e6 else f"{square_metres:,.0f} m²"


def measured_on_ground(outline: ogr.Geometry, crs: osr.SpatialReference | None) -> tuple[ogr.Geometry, float] | None:
    """Return an outline whose coordinates are lengths on the ground, and their unit in metres.

    Uses an equal-area projection around the outline, because coordinates in a geographic CRS or Web Mercator give
    neither lengths nor areas. In a local CRS, coordinates are lengths. Returns None without a CRS that PROJ can use.
    """
    if crs is None:
        return None
    if crs.IsLocal():
        return outline, crs.GetLinearUnits()
    try:
        projected = outline.Clone()
        projected.Transform(osr.CoordinateTransformation(x_first(crs.Clone()), local_metres(crs, outline)))
        return projected, 1.0
    except RuntimeError:  # a CRS that PROJ cannot relate to degrees
        return None


def local_metres(crs: osr.SpatialReference, outline: ogr.Geometry) -> osr.SpatialReference:
    """Return a CRS whose coordinates are metres on the ground around an outline, in an equal-area projection.

    `crs`: of the outline. Raises RuntimeError if PROJ cannot relate it to degrees.
    """
    source, degrees = x_first(crs.Clone()), x_first(crs.CloneGeogCS())
    centroid = outline.Centroid()
    longitude, latitude, _ = osr.CoordinateTransformation(source, degrees).TransformPoint(
        centroid.GetX(), centroid.GetY()
    )
    equal_area = osr.SpatialReference()
    equal_area.SetProjCS("equal area around the region")
    equal_area.CopyGeogCSFrom(crs)
    equal_area.SetLAEA(latitude, longitude, 0, 0)
    return x_first(equal_area)


def same_crs(crs: osr.SpatialReference | None, other: osr.SpatialReference | None) -> bool:
    """Return whether coordinates (x, y) are the same in two CRSs; an unknown CRS counts as the other one.

    Heights do not count: a compound or 3D CRS is compared by its horizontal part.
    """
    if crs is None or other is None or crs.IsSame(other, IGNORE_AXIS_ORDER):
        return True
    try:
        flat, other_flat = _horizontal(crs), _horizontal(other)
        return bool(flat.IsSame(other_flat, IGNORE_AXIS_ORDER)) or _same_without_datum(flat, other_flat)
    except RuntimeError:  # a CRS that PROJ cannot express, as of a damaged file
        return False


def _horizontal(crs: osr.SpatialReference) -> osr.SpatialReference:
    flat = crs.Clone()
    flat.StripVertical()
    flat.DemoteTo2D()
    return flat


def _same_without_datum(crs: osr.SpatialReference, other: osr.SpatialReference) -> bool:
    """Return whether two CRSs differ only in the name of their datum, and both say that it agrees with WGS 84.

    Files that were written from a PROJ string name no datum, but have a `towgs84` of zeros. GDAL gives the same zeros
    to named datums that agree with WGS 84 within a metre or two, such as ETRS89.
    """
    no_shift = "+towgs84=0,0,0,0,0,0,0"
    text, other_text = (
        system.ExportToProj4()
        .replace("+datum=WGS84", f"+ellps=WGS84 {no_shift}")
        .replace("+datum=NAD83", f"+ellps=GRS80 {no_shift}")
        for system in (crs, other)
    )
    return no_shift in text and text == other_text


def outlines_in_wgs84(outlines: Sequence[ogr.Geometry], crs: osr.SpatialReference | None) -> list[ogr.Geometry] | None:
    """Return multipolygons in WGS 84 longitude and latitude, cut where they cross the antimeridian.

    Returns None without a CRS that PROJ can use, and if an outline is outside of the area where the CRS is valid.
    """
    if crs is None:
        return None
    try:
        transformer = ogr.GeomTransformer(
            osr.CoordinateTransformation(x_first(crs.Clone()), wgs84()), ["WRAPDATELINE=YES"]
        )
        transformed = [ogr.ForceToMultiPolygon(transformer.Transform(outline)) for outline in outlines]
    except RuntimeError:  # a CRS that is not of the Earth, or a point outside of the CRS's valid area
        return None
    on_earth = all(
        not outline.IsEmpty() and (np.abs(outline.GetEnvelope()) <= (180, 180, 90, 90)).all() for outline in transformed
    )
    return transformed if on_earth else None


def wgs84() -> osr.SpatialReference:
    """Return WGS 84 with the longitude first."""
    return epsg_crs(4326)


def epsg_crs(code: int) -> osr.SpatialReference:
    """Return the CRS of an EPSG code with x, or the longitude, first."""
    crs = osr.SpatialReference()
    crs.ImportFromEPSG(code)
    return x_first(crs)


def named_crs(name: str) -> osr.SpatialReference | None:
    """Return the CRS of a code, as EPSG:32633 or urn:ogc:def:crs:EPSG::32633, with x first; None if it is unknown."""
    if not re.fullmatch(r"[\w.]+(:[\w.]*)+", name):  # PROJ would also read files and addresses
        return None
    crs = osr.SpatialReference()
    try:
        crs.SetFromUserInput(name)
    except RuntimeError:
        return None
    return x_first(crs)


def x_first(crs: osr.SpatialReference) -> osr.SpatialReference:
    """Make a CRS give x, or the longitude, first; returns it."""
    crs.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return crs
