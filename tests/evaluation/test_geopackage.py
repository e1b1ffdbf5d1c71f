from pathlib import Path

import pytest
from osgeo import gdal

from evaluation.geopackage import create_layer, verify, write_default_style, write_related_table
from rasters.gdal_output import close_dataset
from tests.tiffs import crs


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A file with a layer, a style and a table of two rows, the first of which has a null."""
    path = tmp_path / "one.gpkg"
    dataset = gdal.GetDriverByName("GPKG").Create(str(path), 0, 0, 0, gdal.GDT_Unknown)
    with close_dataset(dataset):
        layer = create_layer(dataset, "fields", crs(32632))
        columns = {"number": "INTEGER", "note": "TEXT"}
        write_related_table(dataset, "notes", columns, ("fields", "fid"), [(1, None), (1, "it's <b>")])
        write_default_style(dataset, layer, "<qgis/>", "a test")
    return path


def test_a_style_is_stored_as_qgis_stores_it(package: Path) -> None:
    dataset = gdal.OpenEx(str(package), gdal.OF_VECTOR)
    (style,) = dataset.GetLayer("layer_styles")
    values = style.items()
    assert values.pop("update_time") is not None
    assert values == {
        "f_table_catalog": "",
        "f_table_schema": "",
        "f_table_name": "fields",
        "f_geometry_column": "geom",
        "styleName": "fields",
        "styleQML": "<qgis/>",
        "styleSLD": "",
        "useAsDefault": 1,
        "description": "a test",
        "owner": "",
        "ui": None,
    }
    # The statement of QGIS 3.22, read from a file in which it saved a style.
    assert sql_of(dataset, "layer_styles") == (
        'CREATE TABLE "layer_styles" ( "id" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, "f_table_catalog" TEXT(256), '
        '"f_table_schema" TEXT(256), "f_table_name" TEXT(256), "f_geometry_column" TEXT(256), "styleName" TEXT(30), '
        '"styleQML" TEXT, "styleSLD" TEXT, "useAsDefault" BOOLEAN, "description" TEXT, "owner" TEXT(30), '
        "\"ui\" TEXT(30), \"update_time\" DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"
    )


def sql_of(dataset: gdal.Dataset, table: str) -> str:
    return dataset.ExecuteSQL(f"SELECT sql FROM sqlite_master WHERE name = '{table}'").GetNextFeature().GetField(0)


def test_tables_without_geometries_are_registered_as_attributes(package: Path) -> None:
    dataset = gdal.OpenEx(str(package), gdal.OF_VECTOR)
    contents = dataset.ExecuteSQL("SELECT table_name, data_type FROM gpkg_contents ORDER BY table_name")
    assert [tuple(row.items().values()) for row in contents] == [
        ("fields", "features"),
        ("layer_styles", "attributes"),
        ("notes", "attributes"),
    ]


def test_values_are_stored_as_they_are(package: Path) -> None:
    dataset = gdal.OpenEx(str(package), gdal.OF_VECTOR)
    assert [tuple(row.items().values()) for row in dataset.GetLayer("notes")] == [(1, None), (1, "it's <b>")]


def test_missing_rows_and_damage_are_found(package: Path) -> None:
    verify(package, {"fields": 0, "notes": 2, "layer_styles": 1})
    with pytest.raises(RuntimeError, match="verification"):
        verify(package, {"fields": 0, "notes": 3})
    content = bytearray(package.read_bytes())
    content[-1:] = b""
    package.write_bytes(content)
    with pytest.raises(RuntimeError):
        verify(package, {"fields": 0, "notes": 2})
