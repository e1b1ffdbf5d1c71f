"""Writes measured footprints as a GeoPackage with its style in QGIS, and counts them for the report."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from osgeo import gdal, ogr

from evaluation.geopackage import (
    STYLES,
    create_layer,
    keep_if_edited,
    open_geopackage,
    record_content,
    set_fields,
    verify,
    write_default_style,
)
from evaluation.qgis_style import footprint_style
from rasters.gdal_output import close_dataset, written_by_gdal

LAYER = "footprints"
# What is measured of a footprint with each buffer, and its name and unit in a GIS.
VALUES = {
    "flagged": "Share flagged (0 to 1)",
    "mean_score": "Mean score (0 to 2)",
    "max_score": "Highest score (0 to 2)",
    "novelty": "Novelty: mean score − usual score",
    "no_data": "Share without data (0 to 1)",
}
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75)  # in the report: footprints of which more than this share is flagged


def field_name(value: str, metres: float) -> str:
    """Return the field of one of VALUES with a buffer."""
    return f"{value}_{metres:g}m"


def write_footprints(
    path: Path, source: ogr.Layer, numbers: np.ndarray, buffers: Sequence[float], values: np.ndarray
) -> None:
    """Write footprints with the fields of their source, except those named like ours; the file appears as a whole.

    `numbers`: (n,) the features' IDs in the source. `buffers`: metres. `values`: (n, buffers, VALUES), NaN for none. A
    file that somebody edited is kept under another name. Raises EventError if the file cannot be written.
    """
    aliases = {
        field_name(value, metres): f"{title}, within {metres:g} m" if metres else title
        for metres in buffers
        for value, title in VALUES.items()
    }
    taken = {name.lower() for name in (*aliases, "fid", "geom")}
    copied = [field for field in source.schema if field.GetName().lower() not in taken]
    keep_if_edited(path, {LAYER, STYLES})
    with written_by_gdal(path) as part:
        dataset = gdal.GetDriverByName("GPKG").Create(str(part), 0, 0, 0, gdal.GDT_Unknown)
        with close_dataset(dataset):
            layer = create_layer(dataset, LAYER, source.GetSpatialRef(), ogr.wkbUnknown)
            for field in copied:
                layer.CreateField(field)
            for name in aliases:
                layer.CreateField(ogr.FieldDefn(name, ogr.OFTReal))
            dataset.StartTransaction()
            for number, measured in zip(numbers.tolist(), values.reshape(len(values), -1), strict=True):
                _copy_feature(layer, source.GetFeature(number), len(copied), measured)
            write_default_style(
                dataset, layer, footprint_style(field_name("flagged", buffers[0]), aliases), "share flagged"
            )
            dataset.CommitTransaction()
            record_content(layer)
        verify(part, {LAYER: len(numbers), STYLES: 1})


def _copy_feature(layer: ogr.Layer, original: ogr.Feature, first: int, values: np.ndarray) -> None:
    """Copy a feature; its values go into the fields from the index `first` on."""
    feature = ogr.Feature(layer.GetLayerDefn())
    feature.SetFrom(original)
    set_fields(feature, enumerate((None if np.isnan(value) else value for value in values.tolist()), first))
    layer.CreateFeature(feature)


class FootprintCounts(NamedTuple):
    """How many footprints of an event are flagged by more than each of SHARES, by buffer."""

    total: int
    by_buffer: Mapping[str, list[int]]  # by the buffer's text, as in `10 m`


def count_footprints(path: Path) -> FootprintCounts | None:
    """Return the counts of a file that `write_footprints` wrote; None if it is missing or damaged."""
    with suppress(RuntimeError, AttributeError):  # AttributeError: no such layer
        dataset = open_geopackage(path)
        layer = dataset.GetLayerByName(LAYER)
        names = [field.GetName() for field in layer.schema if field.GetName().startswith("flagged_")]
        counts = {}
        for name in names:
            sums = ", ".join(f'SUM("{name}" > {share})' for share in SHARES)
            result = dataset.ExecuteSQL(f'SELECT {sums} FROM "{LAYER}"')
            row = result.GetNextFeature()
            counts[name.removeprefix("flagged_").removesuffix("m") + " m"] = [
                int(row.GetField(index) or 0) for index in range(len(SHARES))
            ]
            dataset.ReleaseResultSet(result)
        return FootprintCounts(layer.GetFeatureCount(), counts)
    return None
