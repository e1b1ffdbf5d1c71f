"""Parts of a GeoPackage: layer, related table, style in QGIS, and checks that the file is whole."""

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from osgeo import gdal, ogr, osr

from utils import LOG, EventError

# The GeoPackage standard's definition of "no CRS". By default, GDAL writes an undefined geographic CRS.
NO_CRS = 'LOCAL_CS["Undefined Cartesian SRS"]'

CONTENT_KEY = "ANOMALYCD_CONTENT"  # metadata item of a layer
JOURNALS = ("-wal", "-shm", "-journal")  # of SQLite, beside a file that is being edited
STYLES = "layer_styles"  # the table in which QGIS looks for the styles of a file's layers
# Its columns as QGIS creates them. Name, type, width.
STYLE_FIELDS = (
    ("f_table_catalog", ogr.OFTString, 256),
    ("f_table_schema", ogr.OFTString, 256),
    ("f_table_name", ogr.OFTString, 256),
    ("f_geometry_column", ogr.OFTString, 256),
    ("styleName", ogr.OFTString, 30),
    ("styleQML", ogr.OFTString, 0),
    ("styleSLD", ogr.OFTString, 0),
    ("useAsDefault", ogr.OFTInteger, 0),
    ("description", ogr.OFTString, 0),
    ("owner", ogr.OFTString, 30),
    ("ui", ogr.OFTString, 30),
    ("update_time", ogr.OFTDateTime, 0),
)


def open_geopackage(path: Path, flags: int = 0) -> gdal.Dataset:
    """Open a GeoPackage, and no file of another format. Raises RuntimeError if that fails. `flags`: of GDAL."""
    return gdal.OpenEx(str(path), gdal.OF_VECTOR | flags, allowed_drivers=["GPKG"])


def create_layer(
    dataset: gdal.Dataset, name: str, crs: osr.SpatialReference | None, kind: int = ogr.wkbMultiPolygon
) -> ogr.Layer:
    """Create a layer of one kind of geometry."""
    if crs is None:
        crs = osr.SpatialReference(NO_CRS)
    try:
        return dataset.CreateLayer(name, crs, kind)
    except RuntimeError:
        # GDAL also raises this if it created the layer but could write the CRS in only one of two forms.
        layer = dataset.GetLayerByName(name)
        if layer is None:
            raise
        return layer


def set_fields(feature: ogr.Feature, values: Iterable[tuple[str | int, Any]]) -> None:
    """Set fields of a feature, given by name or index; None is null."""
    for field, value in values:
        if value is None:
            feature.SetFieldNull(field)
        else:
            feature.SetField(field, value)


def write_related_table(
    dataset: gdal.Dataset,
    name: str,
    columns: Mapping[str, str],
    parent: tuple[str, str],
    rows: Iterable[Sequence[str | float | None]],
) -> None:
    """Write a table without geometries whose first column refers to a column of a layer.

    GDAL and QGIS discover the relation by the foreign key. `columns`: SQL types by name. `parent`: the layer and its
    column, which must be unique.
    """
    layer, key = parent
    definitions = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    dataset.ExecuteSQL(
        f'CREATE TABLE "{name}" (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, {definitions}, '
        f'FOREIGN KEY ("{next(iter(columns))}") REFERENCES "{layer}"("{key}"))'
    )
    dataset.ExecuteSQL(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
        f"VALUES ({_literal(name)}, 'attributes', {_literal(name)})"
    )
    names = ", ".join(f'"{column}"' for column in columns)
    for row in rows:
        dataset.ExecuteSQL(f'INSERT INTO "{name}" ({names}) VALUES ({", ".join(map(_literal, row))})')


def _literal(value: str | float | None) -> str:
    """Return a value in SQL."""
    if value is None:
        return "NULL"
    return "'{}'".format(value.replace("'", "''")) if isinstance(value, str) else repr(value)


def write_default_style(dataset: gdal.Dataset, layer: ogr.Layer, qml: str, description: str) -> None:
    """Write the style that QGIS uses when it opens a layer, as QGIS itself stores it."""
    styles = dataset.CreateLayer(STYLES, None, ogr.wkbNone, ["FID=id"])
    for name, kind, width in STYLE_FIELDS:
        field = ogr.FieldDefn(name, kind)
        field.SetWidth(width)
        if name == "useAsDefault":
            field.SetSubType(ogr.OFSTBoolean)
        if name == "update_time":
            field.SetDefault("CURRENT_TIMESTAMP")
        styles.CreateField(field)
    values = {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": layer.GetName(),
        "f_geometry_column": layer.GetGeometryColumn(),
        "styleName": layer.GetName(),
        "styleQML": qml,
        "styleSLD": "",
        "useAsDefault": 1,
        "description": description,
        "owner": "",
    }
    row = ogr.Feature(styles.GetLayerDefn())
    for name, value in values.items():
        row.SetField(name, value)
    styles.CreateFeature(row)


def verify(path: Path, rows: Mapping[str, int]) -> None:
    """Raise RuntimeError unless a GeoPackage is whole and has these numbers of rows, by table."""
    dataset = open_geopackage(path)
    counts = {name: _query(dataset, f'SELECT count(*) FROM "{name}"') for name in rows}
    if not is_whole(dataset) or counts != dict(rows):
        raise RuntimeError("verification after writing failed")


def is_whole(dataset: gdal.Dataset) -> bool:
    """Return whether a GeoPackage has all of its pages, and SQLite finds no damage in it."""
    size = int(_query(dataset, "PRAGMA page_count")) * int(_query(dataset, "PRAGMA page_size"))
    complete = Path(dataset.GetDescription()).stat().st_size >= size  # SQLite reads missing bytes of a page as zeros
    return complete and _query(dataset, "PRAGMA integrity_check") == "ok"


def _query(dataset: gdal.Dataset, sql: str) -> str | int:
    """Return the first value of a query's result."""
    result = dataset.ExecuteSQL(sql)
    value = result.GetNextFeature().GetField(0)
    dataset.ReleaseResultSet(result)
    return value


# --- Files that somebody works on ------------------------------------------------------------------------------------
def record_content(layer: ogr.Layer) -> None:
    """Record a layer's content in its metadata, so that later edits are noticed."""
    layer.SetMetadata(layer.GetMetadata_Dict() | {CONTENT_KEY: _content(layer)})


def without_content(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return a layer's metadata as it was before `record_content`."""
    return {name: text for name, text in metadata.items() if name != CONTENT_KEY}


def _content(layer: ogr.Layer) -> str:
    """Return the SHA-256 of a layer's features: fields, values and geometries."""
    digest = hashlib.sha256()
    layer.ResetReading()
    fields = sorted((field.GetName(), index) for index, field in enumerate(layer.schema))
    for feature in layer:
        geometry = feature.GetGeometryRef()
        digest.update(repr([(name, feature.GetField(index)) for name, index in fields]).encode())
        digest.update(bytes(geometry.ExportToWkb()) if geometry else b"")
    return digest.hexdigest()


def keep_if_edited(path: Path, tables: Collection[str]) -> None:
    """Rename a GeoPackage that somebody edited, or that a GIS holds open, so that it is not overwritten; say so.

    It counts as edited if its first layer differs from what `record_content` recorded, if it has other tables than
    these, several styles, or a journal beside it. Raises EventError if another program locks it.
    """
    journals = [file for file in (path.with_name(path.name + suffix) for suffix in JOURNALS) if file.exists()]
    if not journals and not (path.exists() and _is_edited(path, tables)):
        return
    stamp = time.strftime("%Y%m%d-%H%M%S")
    kept = path.with_name(f"{path.stem}_{stamp}{path.suffix}")
    for file in (path, *journals):
        if file.exists():
            file.rename(kept.with_name(kept.name + file.name.removeprefix(path.name)))
    LOG.warning("%s: was edited, or is open in another program: kept as %s", path, kept.name)


def _is_edited(path: Path, tables: Collection[str]) -> bool:
    try:
        dataset = open_geopackage(path)
        layers = [dataset.GetLayer(number) for number in range(dataset.GetLayerCount())]
        styles = dataset.GetLayerByName(STYLES)
        return (
            any(layer.GetName() not in tables for layer in layers)
            or (styles is not None and styles.GetFeatureCount() > 1)
            or layers[0].GetMetadata_Dict().get(CONTENT_KEY) != _content(layers[0])
        )
    except RuntimeError as error:
        if "locked" in str(error):
            raise EventError(f"{path}: is locked by another program; close it there") from None
        return False  # damaged: it is no longer anybody's work
    except (AttributeError, IndexError):  # not a GeoPackage with layers
        return False
