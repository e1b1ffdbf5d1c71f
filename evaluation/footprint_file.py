"""Opens a vector file of footprints, and places them in the pixels of an event's maps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from osgeo import gdal, ogr, osr

from rasters.maps import ScoreMap
from rasters.place import find_grid, local_metres, raster_outline, x_first
from utils import EventError, UsageError, first_line

QUADRANT_SEGMENTS = 8  # of a buffer's round corners
BORDER_PIECES = 20  # of each side of the image, to find its extent in another CRS


@dataclass(frozen=True)
class FootprintFile:
    """The first layer of a vector file, limited to the extent of an event's maps."""

    path: Path
    dataset: gdal.Dataset  # keeps the layer alive
    layer: ogr.Layer
    to_pixels: "ToPixels"

    @property
    def count(self) -> int:
        """The number of footprints whose boxes touch the event's extent."""
        return int(self.layer.GetFeatureCount())

    def rings(self, number: int, buffers: Sequence[float]) -> list[list[np.ndarray]] | None:
        """Return the rings of a footprint with each buffer, see `ToPixels.outline`; None if it is damaged or empty.

        `number`: ID of its feature.
        """
        feature = self.layer.GetFeature(number)  # owns the geometry
        geometry = feature.GetGeometryRef()
        try:
            if geometry is None or geometry.IsEmpty():
                return None
            if geometry.GetDimension() == 2 and not geometry.IsValid():
                geometry = geometry.MakeValid()
            return [self.to_pixels.outline(geometry, metres) for metres in buffers]
        except (RuntimeError, AttributeError):  # AttributeError: MakeValid or Buffer returned None
            return None


def open_footprints(path: Path, scores: ScoreMap, widest: float) -> FootprintFile:
    """Open a vector file for an event. `widest`: of all buffers, metres.

    Raises UsageError if the file cannot be read, EventError if it and the event's maps cannot be brought together.
    """
    try:
        dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    except RuntimeError as error:
        raise UsageError(f"{path}: is no vector file that GDAL reads ({first_line(error)})") from None
    layer = dataset.GetLayer(0)
    if layer is None:
        raise UsageError(f"{path}: has no layer")
    crs = layer.GetSpatialRef()
    if crs is not None and crs.GetName().startswith("Undefined"):  # a GeoPackage's way to have none
        crs = None
    to_pixels = ToPixels.between(path, crs, scores, widest)
    layer.SetSpatialFilterRect(*to_pixels.extent)
    return FootprintFile(path, dataset, layer, to_pixels)


class ToPixels(NamedTuple):
    """Converts footprints to outlines in pixels of an event's maps."""

    to_map: osr.CoordinateTransformation | None  # from the footprints' CRS; None: neither has a CRS
    to_metres: osr.CoordinateTransformation | None  # from the footprints' CRS to lengths on the ground; None: unknown
    from_metres: osr.CoordinateTransformation | None
    transform: tuple[float, ...]  # from coordinates of the map to pixels
    extent: tuple[float, float, float, float]  # of the map with the widest buffer, in the footprints' CRS

    @classmethod
    def between(cls, path: Path, crs: osr.SpatialReference | None, scores: ScoreMap, widest: float) -> "ToPixels":
        """Relate a CRS to a map. `path`: the file with this CRS, for messages. Raises EventError if that fails."""
        grid = find_grid(scores.georeference, scores.shape)
        if grid is None:
            raise EventError(f"{scores.path}: has no georeference, so footprints cannot be placed on it")
        if (crs is None) != (grid.crs is None):
            missing = path if crs is None else scores.path
            raise EventError(f"{missing}: has no CRS, so footprints cannot be placed on the map; assign one (-a_srs)")
        inverse = gdal.InvGeoTransform(grid.transform)
        border = raster_outline(grid, BORDER_PIECES)
        if crs is None or grid.crs is None:
            return cls(None, None, None, inverse, _corners(border))
        own, other = x_first(crs.Clone()), x_first(grid.crs.Clone())
        try:
            metres = local_metres(other, border)
            border.Transform(osr.CoordinateTransformation(other, metres))
            border = border.Buffer(widest + 1) if widest else border
            border.Transform(osr.CoordinateTransformation(metres, own))
            return cls(
                osr.CoordinateTransformation(own, other),
                osr.CoordinateTransformation(own, metres),
                osr.CoordinateTransformation(metres, other),
                inverse,
                _corners(border),
            )
        except RuntimeError as error:
            reason = first_line(error)
            raise EventError(f"{path}: its CRS cannot be related to that of {scores.path} ({reason})") from None

    def outline(self, footprint: ogr.Geometry, metres: float) -> list[np.ndarray]:
        """Return the rings of a footprint with a buffer: (n, 2) float64, x and y in pixels, holes the other way round.

        There are none of a point or a line without buffer, and none with a buffer if lengths on the ground are unknown.
        Raises RuntimeError if the geometry cannot be transformed.
        """
        shape = footprint.Clone()
        if metres and self.to_metres is None:
            return []
        if metres:
            shape.Transform(self.to_metres)
            shape = shape.Buffer(metres, QUADRANT_SEGMENTS)
            shape.Transform(self.from_metres)
        elif self.to_map is not None:
            shape.Transform(self.to_map)
        x0, xx, xy, y0, yx, yy = self.transform
        rings = []
        for polygon in _polygons(shape):
            for number, ring in enumerate(polygon):
                points = np.array(ring.GetPoints())[:, :2] @ [[xx, yx], [xy, yy]] + [x0, y0]
                is_forward = signed_area(points) > 0
                rings.append(points if is_forward == (number == 0) else points[::-1])
        return rings


def _polygons(shape: ogr.Geometry) -> Iterator[ogr.Geometry]:
    """Yield the polygons of a geometry; points and lines have none."""
    kind = ogr.GT_Flatten(shape.GetGeometryType())
    if kind == ogr.wkbPolygon:
        yield shape
    elif kind in (ogr.wkbMultiPolygon, ogr.wkbGeometryCollection):
        for part in shape:
            yield from _polygons(part)


def _corners(outline: ogr.Geometry) -> tuple[float, float, float, float]:
    left, right, low, high = outline.GetEnvelope()
    return left, low, right, high


def signed_area(points: np.ndarray) -> float:
    """Return the area of a ring, (n, 2), whose last point is its first one; its sign is that of its direction."""
    x, y = (points - points[0]).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
