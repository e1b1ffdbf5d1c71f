"""Outlines of the regions of a binary map, in the CRS of a raster (docs/data.md)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from osgeo import gdal, gdal_array, ogr, osr

from eval_metrics import BinaryMap
from rasters.geotiff import Georeference
from rasters.place import measured_on_ground
from utils import first_line, warn_once

HALVINGS = 4  # of the tolerance, at most, until a simplified outline is valid


def outline_regions(
    binary: BinaryMap, numbers: np.ndarray, count: int, georeference: Georeference
) -> tuple[list[ogr.Geometry], osr.SpatialReference | None]:
    """Return the multipolygons of a binary map's regions, and the CRS of their coordinates.

    Without georeferencing, coordinates are pixels with y upwards. `numbers`: the map of the regions' numbers, from 1 to
    `count`, see `measure_regions`.
    """
    outliner = _Outliner.of(georeference, binary.shape)
    return [outliner.outline(polygons) for polygons in _polygons(binary, numbers, count)], outliner.crs


def _polygons(binary: BinaryMap, numbers: np.ndarray, count: int) -> list[list[list[np.ndarray]]]:
    """Return the polygons of every region, as lists of rings, the outer one first.

    A ring is (n, 2), x and y in pixels of the whole map. Pixels that touch only at a corner belong to one region but to
    two polygons, so that all polygons are valid.
    """
    edges_x, edges_y = (
        np.searchsorted(starts, np.arange(length + 1))
        for starts, length in zip((binary.columns, binary.rows), reversed(numbers.shape), strict=True)
    )
    raster = gdal_array.OpenArray(numbers.astype(np.int32))
    raster.SetGeoTransform((0, 1, 0, 0, 0, 1))
    source = ogr.GetDriverByName("Memory").CreateDataSource("")
    layer = source.CreateLayer("", None, ogr.wkbPolygon)
    layer.CreateField(ogr.FieldDefn("number", ogr.OFTInteger))
    band = raster.GetRasterBand(1)
    gdal.Polygonize(band, band, layer, 0)  # the band is also the mask, so number 0 is left out
    polygons: list[list[list[np.ndarray]]] = [[] for _ in range(count)]
    for feature in layer:
        polygon = feature.GetGeometryRef()
        rings = [np.array(ring.GetPoints())[:, :2].astype(int) for ring in polygon]
        polygons[feature.GetField(0) - 1].append(
            [np.stack([edges_x[ring[:, 0]], edges_y[ring[:, 1]]], axis=1) for ring in rings]
        )
    return polygons


class _Outliner(NamedTuple):
    """Converts rings in pixels to geometries in a CRS."""

    to_coordinates: Callable[[np.ndarray], Sequence[Sequence[float]]]  # (n, 2) pixel x, y to n coordinates x, y
    crs: osr.SpatialReference | None

    @classmethod
    def of(cls, georeference: Georeference, shape: tuple[int, int]) -> "_Outliner":
        """Use the transform, else the control points, else no georeferencing."""
        if georeference.transform is not None:
            return cls(_affine(georeference.transform), georeference.spatial_reference)
        if georeference.gcps:
            height, width = shape
            dataset = gdal.GetDriverByName("MEM").Create("", width, height, 0)
            dataset.SetGCPs(georeference.gcps, georeference.gcp_spatial_reference)
            try:
                transformer = gdal.Transformer(dataset, None, ["METHOD=GCP_POLYNOMIAL"])
                transformer.TransformPoint(0, 0, 0)
            except RuntimeError as error:  # too few points, or all on one line
                warn_once(f"control points cannot be used; the regions are in pixel coordinates ({first_line(error)})")
            else:
                return cls(
                    lambda pixels: [point[:2] for point in transformer.TransformPoints(0, pixels.tolist())[0]],
                    georeference.gcp_spatial_reference,
                )
        return cls(_affine((0, 1, 0, 0, 0, -1)), None)  # y points upwards, as a GIS shows such a raster

    def outline(self, polygons: list[list[np.ndarray]]) -> ogr.Geometry:
        """Return the multipolygon of polygons that are given in pixels."""
        return _multipolygon([self.to_coordinates(ring.astype(float)) for ring in rings] for rings in polygons)


def _affine(transform: Sequence[float]) -> Callable[[np.ndarray], Sequence[Sequence[float]]]:
    x0, xx, xy, y0, yx, yy = transform
    return lambda pixels: (pixels @ [[xx, yx], [xy, yy]] + [x0, y0]).tolist()


def _multipolygon(polygons: Iterable[Iterable[Sequence[Sequence[float]]]]) -> ogr.Geometry:
    """Return the multipolygon of polygons, lists of rings of vertices, the outer ring first."""
    multipolygon = ogr.Geometry(ogr.wkbMultiPolygon)
    for rings in polygons:
        polygon = ogr.Geometry(ogr.wkbPolygon)
        for vertices in rings:
            ring = ogr.Geometry(ogr.wkbLinearRing)
            for x, y in vertices:
                ring.AddPoint_2D(x, y)
            polygon.AddGeometry(ring)
        multipolygon.AddGeometry(polygon)
    return multipolygon


def _vertices(multipolygon: ogr.Geometry) -> Iterator[tuple[float, ...]]:
    for polygon in multipolygon:
        for ring in polygon:
            yield from (point[:2] for point in ring.GetPoints())


def simplify_outline(outline: ogr.Geometry, crs: osr.SpatialReference | None, metres: float) -> ogr.Geometry | None:
    """Return a multipolygon with fewer vertices, none of which lies more than `metres` beside the old outline.

    No removed vertex lies further from the new outline either. The polygons and holes stay, and so do the coordinates
    of the vertices that are left. If the result is invalid, the tolerance is halved; after HALVINGS the outline stays
    as it is. Returns None if lengths on the ground are unknown, see `measured_on_ground`.
    """
    measured = measured_on_ground(outline, crs)
    if measured is None:
        return None
    on_ground, unit = measured
    coordinates = dict(zip(_vertices(on_ground), _vertices(outline), strict=True))
    for halvings in range(HALVINGS + 1):
        kept = on_ground.SimplifyPreserveTopology(metres / unit / 2**halvings)
        simplified = _multipolygon(
            [[coordinates[vertex[:2]] for vertex in ring.GetPoints()] for ring in polygon]
            for polygon in ogr.ForceToMultiPolygon(kept)
        )
        if simplified.IsValid():
            return simplified
    return outline
