"""Finds the regions of a binary map as polygons, and writes them in files that a GIS opens (docs/data.md)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from osgeo import gdal, ogr, osr

from eval_metrics import BinaryMap
from evaluation.explanations import ExplanationRaster, RegionExplanation, explain_regions
from evaluation.geopackage import (
    STYLES,
    create_layer,
    is_whole,
    keep_if_edited,
    open_geopackage,
    record_content,
    set_fields,
    verify,
    without_content,
    write_default_style,
    write_related_table,
)
from evaluation.outlines import outline_regions, simplify_outline
from evaluation.qgis_style import region_style
from evaluation.regions import Region, measure_regions
from rasters.gdal_output import close_dataset, written_by_gdal
from rasters.geotiff import Georeference
from rasters.place import ground_areas, outlines_in_wgs84
from rasters.raster import Raster
from utils import warn_once

LAYER = "regions"
SETTINGS_KEY = "ANOMALYCD_SETTINGS"  # in previews and polygons: the settings they were made with, as JSON
FIELDS = (
    ("region", ogr.OFTInteger),
    ("mean_score", ogr.OFTReal),
    ("max_score", ogr.OFTReal),
    ("area_m2", ogr.OFTReal),
    ("area_pixels", ogr.OFTInteger64),
    ("centroid_x", ogr.OFTReal),
    ("centroid_y", ogr.OFTReal),
)
EXPLANATION_FIELDS = (
    ("most_similar_date", ogr.OFTString),
    ("similarity", ogr.OFTReal),
    ("usual_score", ogr.OFTReal),
    ("novelty", ogr.OFTReal),
)
ALIASES = {  # in a GIS, with units
    "region": "Region",
    "mean_score": "Mean score (0 to 2)",
    "max_score": "Highest score (0 to 2)",
    "area_m2": "Area (m²)",
    "area_pixels": "Area (pixels)",
    "centroid_x": "Centroid, x (units of the CRS)",
    "centroid_y": "Centroid, y (units of the CRS)",
    "most_similar_date": "Most similar date",
    "similarity": "Similarity with this date (−1 to 1)",
    "usual_score": "Usual score (0 to 2)",
    "novelty": "Novelty: mean score − usual score",
    "event": "Event",
    "category": "Category",
}
DATES_TABLE = "region_dates"
DATES_COLUMNS = {"region": "MEDIUMINT NOT NULL", "date": "TEXT NOT NULL", "similarity": "REAL"}


class PlacedRegion(NamedTuple):
    """A region with its outline and position."""

    region: Region
    outline: ogr.Geometry  # multipolygon in the CRS, or in pixels with y upwards if the place is unknown
    area_m2: float | None  # of its pixels, on the ground; None if the place is unknown
    centroid: tuple[float, float]  # of its pixels, in the outline's coordinates
    explanation: RegionExplanation | None = None  # None without an explanation map


class Regions(NamedTuple):
    """All regions of a binary map, sorted by mean score, the highest first."""

    regions: list[PlacedRegion]
    crs: osr.SpatialReference | None  # of the outlines
    dates: tuple[str, ...] = ()  # the historical dates, oldest first; empty without an explanation map


def find_regions(
    binary: BinaryMap,
    scores: Raster,
    georeference: Georeference,
    explanation: ExplanationRaster | None = None,
    split: bool = False,
) -> Regions:
    """Return the regions of a binary map. `scores`: float32, the map that it was made from; NaN: no data.

    `split`: see `measure_regions`.
    """
    measured, numbers = measure_regions(binary, scores, split)
    explanations: Sequence[RegionExplanation | None] = [None] * len(measured)
    if explanation is not None:
        explanations = explain_regions(explanation, binary, numbers, [region.pixels for region in measured])
    outlines, crs = outline_regions(binary, numbers, len(measured), georeference)
    placed, areas = [], ground_areas(outlines, crs)
    for region, outline, area, explained in zip(measured, outlines, areas, explanations, strict=True):
        centroid = outline.Centroid()
        placed.append(PlacedRegion(region, outline, area, (centroid.GetX(), centroid.GetY()), explained))
    return Regions(placed, crs, () if explanation is None else tuple(explanation.dates))


def simplify_regions(found: Regions, metres: float) -> Regions:
    """Simplify the outlines by at most so many metres on the ground; all other values stay those of the pixels.

    Without a CRS that PROJ can use, metres are unknown: a warning says so, and the outlines stay as they are.
    """
    simplified = []
    for placed in found.regions:
        outline = simplify_outline(placed.outline, found.crs, metres)
        if outline is None:
            warn_once("outlines of regions are not simplified: without a usable CRS, their size in metres is unknown")
            return found
        simplified.append(placed._replace(outline=outline))
    return found._replace(regions=simplified)


# --- Files -----------------------------------------------------------------------------------------------------------
def write_regions(
    path: Path, found: Regions, attributes: Mapping[str, str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write regions as a GeoPackage with one layer and its style in QGIS; the file appears whole or not at all.

    If the regions are explained, a table has the similarity of each region with each date. `attributes`: texts of every
    region, by field name. `metadata`: texts of the layer, by name. Raises EventError if the file cannot be written.
    """
    rows = {LAYER: len(found.regions), STYLES: 1}
    if found.dates:
        rows[DATES_TABLE] = len(found.regions) * len(found.dates)
    keep_if_edited(path, {LAYER, DATES_TABLE, STYLES})
    with written_by_gdal(path) as part:
        dataset = gdal.GetDriverByName("GPKG").Create(str(part), 0, 0, 0, gdal.GDT_Unknown)
        with close_dataset(dataset):
            layer = create_layer(dataset, LAYER, found.crs)
            _create_fields(layer, found, attributes)
            layer.SetMetadata(dict(metadata or {}))
            dataset.StartTransaction()
            _create_features(layer, found, [placed.outline for placed in found.regions], attributes)
            if found.dates:
                write_related_table(dataset, DATES_TABLE, DATES_COLUMNS, (LAYER, "region"), _dates_rows(found))
            write_default_style(dataset, layer, region_style(bool(found.dates), ALIASES), "mean anomaly score")
            dataset.CommitTransaction()
            record_content(layer)
        verify(part, rows)


def write_geojson(path: Path, found: Regions, attributes: Mapping[str, str]) -> bool:
    """Write regions as GeoJSON (RFC 7946) in WGS 84, with the fields of `write_regions`.

    The file appears whole or not at all. Without a CRS that PROJ can transform, a warning says so, no file is written,
    and the result is False. Raises EventError if the file cannot be written.
    """
    outlines = outlines_in_wgs84([placed.outline for placed in found.regions], found.crs)
    if outlines is None:
        warn_once(f"{path}: not written: the raster has no CRS that can be transformed to WGS 84")
        return False
    with written_by_gdal(path) as part:
        dataset = gdal.GetDriverByName("GeoJSON").Create(str(part), 0, 0, 0, gdal.GDT_Unknown)
        with close_dataset(dataset):
            layer = dataset.CreateLayer(LAYER, None, ogr.wkbMultiPolygon, ["RFC7946=YES"])
            _create_fields(layer, found, attributes)
            _create_features(layer, found, outlines, attributes)
        written = gdal.OpenEx(str(part), gdal.OF_VECTOR, allowed_drivers=["GeoJSON"])
        if written.GetLayer(0).GetFeatureCount() != len(found.regions):
            raise RuntimeError("verification after writing failed")
    return True


def _create_fields(layer: ogr.Layer, found: Regions, attributes: Mapping[str, str]) -> None:
    fields = (*FIELDS, *(EXPLANATION_FIELDS if found.dates else ()), *((name, ogr.OFTString) for name in attributes))
    for name, kind in fields:
        field = ogr.FieldDefn(name, kind)
        field.SetUnique(name == "region")  # the table of dates refers to it
        layer.CreateField(field)


def _create_features(
    layer: ogr.Layer, found: Regions, outlines: Sequence[ogr.Geometry], attributes: Mapping[str, str]
) -> None:
    for number, (placed, outline) in enumerate(zip(found.regions, outlines, strict=True), 1):
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometry(outline)
        set_fields(feature, _values(number, placed, found.dates, attributes).items())
        layer.CreateFeature(feature)


def _values(number: int, placed: PlacedRegion, dates: Sequence[str], attributes: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a feature, by field name."""
    values: dict[str, Any] = {
        "region": number,
        "mean_score": placed.region.mean_score,
        "max_score": placed.region.max_score,
        "area_m2": placed.area_m2,
        "area_pixels": placed.region.pixels,
        "centroid_x": placed.centroid[0],
        "centroid_y": placed.centroid[1],
    }
    explained = placed.explanation
    if explained is not None:
        index, usual = explained.most_similar, explained.usual_score
        values["most_similar_date"] = None if index is None else dates[index]
        values["similarity"] = None if index is None else explained.similarities[index]
        values["usual_score"] = usual
        values["novelty"] = None if usual is None else placed.region.mean_score - usual
    return values | dict(attributes)


def _dates_rows(found: Regions) -> Iterator[tuple[int, str, float | None]]:
    """Yield the rows of the table of dates: region, date, similarity."""
    for number, placed in enumerate(found.regions, 1):
        assert placed.explanation is not None
        for date, similarity in zip(found.dates, placed.explanation.similarities, strict=True):
            yield number, date, similarity


def are_split(path: Path) -> bool:
    """Return whether the regions in a file are split by their scores; False if it cannot be read."""
    try:
        return bool(json.loads((read_regions_metadata(path) or {}).get(SETTINGS_KEY, "{}")).get("split"))
    except ValueError:
        return False


class RegionSummary(NamedTuple):
    """The regions of an event in short."""

    regions: int
    pixels: int
    area_m2: float | None  # None: the size of a pixel is unknown
    highest: float  # score


def summarize_regions(path: Path) -> RegionSummary | None:
    """Summarize the regions in a file; None if it is missing or cannot be read."""
    with suppress(RuntimeError, AttributeError):  # AttributeError: no such layer
        layer = (dataset := open_geopackage(path)).GetLayerByName(LAYER)
        rows = [(region["area_pixels"], region["area_m2"], region["max_score"]) for region in layer]
        del layer, dataset
        areas = [area for _, area, _ in rows if area is not None]
        total = sum(areas) if len(areas) == len(rows) else None
        return RegionSummary(len(rows), sum(row[0] for row in rows), total, max((row[2] for row in rows), default=0.0))
    return None


def read_regions_metadata(path: Path) -> dict[str, str] | None:
    """Return the metadata that `write_regions` stored; None if the file is missing or cannot be read whole."""
    try:
        dataset = open_geopackage(path)
        layer = dataset.GetLayer(LAYER)
        whole = is_whole(dataset) and all(feature.GetGeometryRef() is not None for feature in layer)
        return without_content(layer.GetMetadata_Dict()) if whole else None
    except (RuntimeError, TypeError, AttributeError):
        return None
