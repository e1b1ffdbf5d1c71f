"""Writes the connected regions of a binary map as polygons that a GIS opens (docs/data.md)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from osgeo import gdal, gdal_array, ogr, osr

from eval_metrics import BinaryMap
from evaluation.regions import Region, measure_regions
from rasters.gdal_output import close_dataset, written_by_gdal
from rasters.geotiff import Georeference
from rasters.place import ground_area
from rasters.raster import Raster
from utils import first_line, warn_once

LAYER = "regions"
FIELDS = (
    ("region", ogr.OFTInteger),
    ("mean_score", ogr.OFTReal),
    ("max_score", ogr.OFTReal),
    ("area_m2", ogr.OFTReal),
    ("area_pixels", ogr.OFTInteger64),
    ("centroid_x", ogr.OFTReal),
    ("centroid_y", ogr.OFTReal),
)

# The GeoPackage standard's definition of "no CRS". By default, GDAL writes an undefined geographic CRS.
NO_CRS = 'LOCAL_CS["Undefined Cartesian SRS"]'


class PlacedRegion(NamedTuple):
    """A region with its outline and position."""

    region: Region
    outline: ogr.Geometry  # multipolygon in the CRS, or in pixels with y upwards if the place is unknown
    area_m2: float | None  # of the outline, on the ground; None if the place is unknown
    centroid: tuple[float, float]  # of the outline, in its coordinates


class Regions(NamedTuple):
    """All regions of a binary map, sorted by mean score, the highest first."""

    regions: list[PlacedRegion]
    crs: osr.SpatialReference | None  # of the outlines


def find_regions(binary: BinaryMap, scores: Raster, georeference: Georeference) -> Regions:
    """Return the regions of a binary map. `scores`: float32, the map that it was made from; NaN: no data."""
    measured, numbers = measure_regions(binary, scores)
    place = _Outliner.of(georeference, binary.shape)
    placed = []
    for region, polygons in zip(measured, _outlines(binary, numbers, len(measured)), strict=True):
        outline = place.outline(polygons)
        centroid = outline.Centroid()
        area = ground_area(outline, place.crs)
        placed.append(PlacedRegion(region, outline, area, (centroid.GetX(), centroid.GetY())))
    return Regions(placed, place.crs)


def _outlines(binary: BinaryMap, numbers: np.ndarray, count: int) -> list[list[list[np.ndarray]]]:
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
    outlines: list[list[list[np.ndarray]]] = [[] for _ in range(count)]
    for feature in layer:
        polygon = feature.GetGeometryRef()
        rings = [np.array(ring.GetPoints())[:, :2].astype(int) for ring in polygon]
        outlines[feature.GetField(0) - 1].append(
            [np.stack([edges_x[ring[:, 0]], edges_y[ring[:, 1]]], axis=1) for ring in rings]
        )
    return outlines


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
        outline = ogr.Geometry(ogr.wkbMultiPolygon)
        for rings in polygons:
            polygon = ogr.Geometry(ogr.wkbPolygon)
            for pixels in rings:
                ring = ogr.Geometry(ogr.wkbLinearRing)
                for x, y in self.to_coordinates(pixels.astype(float)):
                    ring.AddPoint_2D(x, y)
                polygon.AddGeometry(ring)
            outline.AddGeometry(polygon)
        return outline


def _affine(transform: Sequence[float]) -> Callable[[np.ndarray], Sequence[Sequence[float]]]:
    x0, xx, xy, y0, yx, yy = transform
    return lambda pixels: (pixels @ [[xx, yx], [xy, yy]] + [x0, y0]).tolist()


def write_regions(
    path: Path, found: Regions, attributes: Mapping[str, str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write regions as a GeoPackage with one layer; the file appears whole or not at all.

    `attributes`: texts of every region, by field name. `metadata`: texts of the layer, by name. Raises EventError if
    the file cannot be written.
    """
    with written_by_gdal(path) as part:
        dataset = gdal.GetDriverByName("GPKG").Create(str(part), 0, 0, 0, gdal.GDT_Unknown)
        with close_dataset(dataset):
            layer = _create_layer(dataset, found.crs)
            for name, kind in (*FIELDS, *((name, ogr.OFTString) for name in attributes)):
                layer.CreateField(ogr.FieldDefn(name, kind))
            layer.SetMetadata(dict(metadata or {}))
            dataset.StartTransaction()
            for number, placed in enumerate(found.regions, 1):
                layer.CreateFeature(_feature(layer, number, placed, attributes))
            dataset.CommitTransaction()
        written = gdal.OpenEx(str(part), gdal.OF_VECTOR, allowed_drivers=["GPKG"])
        intact = written.ExecuteSQL("PRAGMA integrity_check").GetNextFeature().GetField(0)
        if intact != "ok" or written.GetLayer(LAYER).GetFeatureCount() != len(found.regions):
            raise RuntimeError("verification after writing failed")


def _create_layer(dataset: gdal.Dataset, crs: osr.SpatialReference | None) -> ogr.Layer:
    if crs is None:
        crs = osr.SpatialReference(NO_CRS)
    try:
        return dataset.CreateLayer(LAYER, crs, ogr.wkbMultiPolygon)
    except RuntimeError:
        # GDAL also raises this if it created the layer but could write the CRS in only one of two forms.
        layer = dataset.GetLayerByName(LAYER)
        if layer is None:
            raise
        return layer


def _feature(layer: ogr.Layer, number: int, placed: PlacedRegion, attributes: Mapping[str, str]) -> ogr.Feature:
    feature = ogr.Feature(layer.GetLayerDefn())
    feature.SetGeometry(placed.outline)
    values: dict[str, Any] = {
        "region": number,
        "mean_score": placed.region.mean_score,
        "max_score": placed.region.max_score,
        "area_m2": placed.area_m2,
        "area_pixels": placed.region.pixels,
        "centroid_x": placed.centroid[0],
        "centroid_y": placed.centroid[1],
    }
    for name, value in (values | dict(attributes)).items():
        if value is None:
            feature.SetFieldNull(name)
        else:
            feature.SetField(name, value)
    return feature


def read_regions_metadata(path: Path) -> dict[str, str] | None:
    """Return the metadata that `write_regions` stored; None if the file is missing or cannot be read whole."""
    try:
        dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR, allowed_drivers=["GPKG"])
        layer = dataset.GetLayer(LAYER)
        whole = all(feature.GetGeometryRef() is not None for feature in layer)
        return layer.GetMetadata_Dict() if whole else None
    except (RuntimeError, TypeError, AttributeError):
        return None
