"""Polygons that an analyst works on are never overwritten."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from osgeo import gdal, ogr

from evaluation.geopackage import STYLES
from evaluation.polygons import LAYER, Regions, read_regions_metadata, write_regions
from tests.evaluation.test_polygons import UTM, explained, found
from tests.scripts import run_process

# A GIS that is killed while it edits in SQLite's write-ahead mode, which leaves a -wal file beside the GeoPackage.
KILLED_EDITOR = """
import os, signal, sys
from osgeo import gdal, ogr
gdal.UseExceptions()
gdal.SetConfigOption("OGR_SQLITE_JOURNAL", "WAL")
file = gdal.OpenEx(sys.argv[1], gdal.OF_VECTOR | gdal.OF_UPDATE)
file.ExecuteSQL("PRAGMA wal_autocheckpoint=0")
layer = file.GetLayer("regions")
layer.CreateField(ogr.FieldDefn("checked", ogr.OFTString))
layer.SyncToDisk()
for feature in list(layer):
    feature.SetField("checked", "yes")
    layer.SetFeature(feature)
layer.SyncToDisk()
os.kill(os.getpid(), signal.SIGKILL)
"""


def add_field(file: gdal.Dataset) -> None:
    file.GetLayer(LAYER).CreateField(ogr.FieldDefn("verdict", ogr.OFTString))


def delete_a_region(file: gdal.Dataset) -> None:
    file.GetLayer(LAYER).DeleteFeature(1)


def move_a_corner(file: gdal.Dataset) -> None:
    layer = file.GetLayer(LAYER)
    feature = layer.GetFeature(1)
    feature.SetGeometry(ogr.ForceToMultiPolygon(feature.GetGeometryRef().Buffer(0.1)))
    layer.SetFeature(feature)


def add_a_table(file: gdal.Dataset) -> None:
    file.CreateLayer("my notes", None, ogr.wkbNone)


def add_a_style(file: gdal.Dataset) -> None:
    styles = file.GetLayerByName(STYLES)
    styles.CreateFeature(ogr.Feature(styles.GetLayerDefn()))


def values(path: Path, field: str) -> list[object]:
    """The values of a field of all regions."""
    file = gdal.OpenEx(str(path))
    return [feature[field] for feature in file.GetLayer(LAYER)]


@pytest.mark.parametrize("edit", [add_field, delete_a_region, move_a_corner, add_a_table, add_a_style])
def test_an_edited_file_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, edit: Callable[[gdal.Dataset], None]
) -> None:
    path = tmp_path / "regions.gpkg"
    write_regions(path, explained(), {"event": "4_fire"})
    file = gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_UPDATE)
    edit(file)
    del file  # closes it
    edited = path.read_bytes()
    write_regions(path, found(), {"event": "4_fire"})
    new, kept = sorted(tmp_path.iterdir())
    assert new == path
    assert kept.name.startswith("regions_2")
    assert kept.read_bytes() == edited
    assert f"{path}: was edited, or is open in another program: kept as {kept.name}" in caplog.text
    assert read_regions_metadata(path) == {}


def test_an_unedited_file_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "regions.gpkg"
    for regions in (explained(), found(), explained(), Regions([], UTM.spatial_reference)):
        write_regions(path, regions, {"event": "4_fire"}, {"made": "with care"})
        assert len(values(path, "region")) == len(regions.regions)  # reading is no edit
        assert read_regions_metadata(path) == {"made": "with care"}
    assert list(tmp_path.iterdir()) == [path]
    assert "edited" not in caplog.text


def test_the_journal_of_a_killed_editor_stays_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "regions.gpkg"
    write_regions(path, explained(), {})
    assert run_process("-c", KILLED_EDITOR, path).returncode == -signal.SIGKILL
    assert path.with_name("regions.gpkg-wal").stat().st_size > 0
    write_regions(path, Regions(found().regions[:1], UTM.spatial_reference), {})
    assert not path.with_name("regions.gpkg-wal").exists()
    assert values(path, "region") == [1]
    assert read_regions_metadata(path) == {}
    (kept,) = tmp_path.glob("regions_2*.gpkg")
    assert values(kept, "checked") == ["yes", "yes"]


def test_statistics_of_a_replaced_file_are_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, statistics = tmp_path / "regions.gpkg", tmp_path / "regions.gpkg.aux.xml"
    write_regions(path, explained(), {})
    statistics.write_text("<PAMDataset/>")
    write_regions(path, found(), {})
    assert list(tmp_path.iterdir()) == [path]
    assert f"{statistics}: removed, it belonged to outputs that are replaced" in caplog.text
