"""Footprints on maps, with areas computed by hand."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, ogr, osr

import config
import run_report
from eval_metrics import BinaryMap
from evaluation.explanations import ExplanationMap
from evaluation.footprint_file import open_footprints
from evaluation.footprint_layer import VALUES, count_footprints, field_name, write_footprints
from evaluation.footprints import EventRasters, measure_footprints
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from rasters.maps import ScoreMap
from rasters.raster import MemoryRaster
from tests.scripts import FIRE
from utils import EventError, UsageError

EAST, NORTH = 500_000.0, 4_000_000.0  # upper left corner, in UTM
PIXEL = 2.0  # metres


def utm() -> osr.SpatialReference:
    crs = osr.SpatialReference()
    crs.ImportFromEPSG(32633)
    crs.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return crs


def write_scores(path: Path, scores: np.ndarray, crs: osr.SpatialReference | None = None) -> ScoreMap:
    where = Georeference(crs or utm(), (EAST, PIXEL, 0.0, NORTH, 0.0, -PIXEL))
    write_raster(path, MemoryRaster(scores), where, {}, ["score"])
    return ScoreMap(path)


def rasters_of(tmp_path: Path, scores: np.ndarray, threshold: float = 0.5) -> EventRasters:
    binary = BinaryMap(np.nan_to_num(scores) >= threshold, *(np.arange(side) for side in scores.shape))
    return EventRasters(write_scores(tmp_path / "map.tif", scores), binary, None)


def rectangle(left: float, top: float, right: float, bottom: float) -> str:
    """Return a rectangle that is given in pixels, in UTM."""
    corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    points = ", ".join(f"{EAST + PIXEL * x} {NORTH - PIXEL * y}" for x, y in corners)
    return f"POLYGON(({points}))"


def write_vector(
    path: Path, shapes: Sequence[str], crs: osr.SpatialReference | None = None, driver: str = "GPKG"
) -> Path:
    dataset = gdal.GetDriverByName(driver).Create(str(path), 0, 0, 0, gdal.GDT_Unknown)
    layer = dataset.CreateLayer("houses", utm(), ogr.wkbUnknown)
    layer.CreateField(ogr.FieldDefn("name", ogr.OFTString))
    layer.CreateField(ogr.FieldDefn("no_data_0m", ogr.OFTReal))  # a name of ours
    for number, shape in enumerate(shapes):
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometry(ogr.CreateGeometryFromWkt(shape) if shape else None)
        feature.SetField("name", f"house {number}")
        layer.CreateFeature(feature)
        del feature
    del layer, dataset
    if crs is not None:
        other = path.with_name(f"other_{path.name}")
        gdal.VectorTranslate(str(other), str(path), dstSRS=crs.ExportToWkt(), reproject=True)
        return other
    return path


def measured(path: Path, rasters: EventRasters, *buffers: float) -> np.ndarray:
    file = open_footprints(path, rasters.scores, max(buffers))
    return measure_footprints(file, rasters, buffers, lambda _: None)[1]


def test_values_of_footprints_by_hand(tmp_path: Path) -> None:
    scores = np.zeros((8, 10), np.float32)
    scores[:, 2:4] = 0.8
    scores[:, 4] = np.nan
    shapes = [rectangle(1.5, 1.25, 3.5, 2.25), rectangle(3, 4, 6, 6), rectangle(7, 7, 12, 9), rectangle(0, 0, 1, 1)]
    values = measured(write_vector(tmp_path / "a.gpkg", shapes), rasters_of(tmp_path, scores), 0.0)[:, 0]
    names = list(VALUES)
    # 2 x 1 pixels: half a pixel of column 1, one of column 2, half of column 3.
    assert values[0] == pytest.approx([0.75, 0.6, 0.8, np.nan, 0], nan_ok=True, abs=1e-6)
    # Columns 3, 4 (no data) and 5, two rows each.
    assert values[1] == pytest.approx([0.5, 0.4, 0.8, np.nan, 1 / 3], nan_ok=True, abs=1e-6)
    # 3 of 10 pixels are inside of the image.
    assert values[2] == pytest.approx([0, 0, 0, np.nan, 0.7], nan_ok=True, abs=1e-6)
    assert values[3][names.index("flagged")] == 0


def test_a_buffer_is_in_metres_on_the_ground(tmp_path: Path) -> None:
    scores = np.ones((200, 200), np.float32)
    scores[:, 100:] = np.nan
    path = write_vector(tmp_path / "a.gpkg", [rectangle(98, 50, 102, 54), "POINT (500200 3999800)"])
    values = measured(path, rasters_of(tmp_path, scores), 0.0, 10.0)
    assert values[0, :, 4] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert np.isnan(values[1, 0]).all()  # a point has no area
    assert values[1, 1, 4] == pytest.approx(0.5, abs=1e-3)
    area = 4 * 4 * PIXEL**2 + 4 * 4 * PIXEL * 10 + np.pi * 100
    single = write_vector(tmp_path / "b.gpkg", [rectangle(40, 50, 44, 54)])
    one = np.zeros((200, 200), np.float32)
    one[52, 42] = 1
    (found,) = measured(single, rasters_of(tmp_path, one), 10.0)
    assert found[0, 1] == pytest.approx(PIXEL**2 / area, rel=0.01)


def test_footprints_in_another_crs_and_format(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((60, 60)).astype(np.float32)
    rasters = rasters_of(tmp_path, scores)
    shapes = [rectangle(3, 4, 17, 9), rectangle(30, 30, 33, 55)]
    here = measured(write_vector(tmp_path / "a.gpkg", shapes), rasters, 0.0, 20.0)
    wgs84 = osr.SpatialReference()
    wgs84.ImportFromEPSG(4326)
    there = measured(write_vector(tmp_path / "b.gpkg", shapes, wgs84), rasters, 0.0, 20.0)
    assert there == pytest.approx(here, abs=1e-4, nan_ok=True)


def test_many_rows_and_footprints_are_measured_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    scores = random.random((700, 90)).astype(np.float32)
    places = random.uniform(0, 1, (50, 4)) * (80, 690, 30, 300) + (0, 0, 1, 1)
    shapes = [rectangle(x, y, x + width, y + height) for x, y, width, height in places]
    path, rasters = write_vector(tmp_path / "a.gpkg", shapes), rasters_of(tmp_path, scores)
    whole = measured(path, rasters, 0.0)
    monkeypatch.setattr("evaluation.footprints.CHUNK", 7)
    assert measured(path, rasters, 0.0) == pytest.approx(whole, nan_ok=True)
    x, y, width, height = np.round(places[0]).astype(int)
    path = write_vector(tmp_path / "b.gpkg", [rectangle(x, y, x + width, y + height)])
    inside = scores[y : y + height, x : x + width]
    assert measured(path, rasters, 0.0)[0, 0, 1] == pytest.approx(inside.mean(), abs=1e-6)


def test_damaged_and_distant_footprints_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bow_tie = "POLYGON((500000 3999990, 500010 3999980, 500010 3999990, 500000 3999980, 500000 3999990))"
    shapes = ["", bow_tie, rectangle(900, 900, 910, 910), rectangle(1, 1, 2, 2), "POLYGON EMPTY"]
    path = write_vector(tmp_path / "a.gpkg", shapes)
    rasters = rasters_of(tmp_path, np.ones((20, 20), np.float32))
    numbers, values = measure_footprints(open_footprints(path, rasters.scores, 0.0), rasters, (0.0,), lambda _: None)
    assert numbers.tolist() == [2, 4]  # features are numbered from 1
    assert values[:, 0, 0].tolist() == [1, 1]


def test_files_that_cannot_be_placed_are_refused(tmp_path: Path) -> None:
    scores = rasters_of(tmp_path, np.ones((20, 20), np.float32)).scores
    text = tmp_path / "a.txt"
    text.write_text("no vector")
    with pytest.raises(UsageError, match="is no vector file"):
        open_footprints(text, scores, 0.0)
    table = tmp_path / "a.csv"
    table.write_text('name,WKT\nhouse,"POINT (1 2)"\n')
    with pytest.raises(EventError, match="has no CRS"):
        open_footprints(table, scores, 0.0)


def test_an_explanation_gives_the_novelty(tmp_path: Path) -> None:
    scores = np.full((6, 6), 0.9, np.float32)
    path = tmp_path / "explanation.tif"
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), 6, 6, 2, gdal.GDT_Float32)
    usual = np.full((6, 6), 0.2, np.float32)
    usual[:, 3:] = -1  # not compared
    dataset.GetRasterBand(1).Fill(0.5)
    dataset.GetRasterBand(2).WriteArray(usual)
    del dataset
    rasters = rasters_of(tmp_path, scores)._replace(explanation=ExplanationMap(path))
    values = measured(write_vector(tmp_path / "a.gpkg", [rectangle(1, 1, 5, 5), rectangle(4, 1, 5, 2)]), rasters, 0.0)
    assert values[:, 0, 3] == pytest.approx([0.7, np.nan], nan_ok=True)


def test_the_layer_keeps_the_fields_of_its_source(tmp_path: Path) -> None:
    source = gdal.OpenEx(str(write_vector(tmp_path / "a.gpkg", [rectangle(1, 1, 2, 2), rectangle(2, 2, 3, 3)])))
    path = tmp_path / "out.gpkg"
    values = np.array([[[0.3, 0.1, 0.2, np.nan, 0]], [[0.8, 0.1, 0.2, np.nan, 0]]])
    write_footprints(path, source.GetLayer(0), np.array([1, 2]), [0.0], values)
    layer = (dataset := gdal.OpenEx(str(path), gdal.OF_VECTOR)).GetLayerByName("footprints")
    rows = [feature.items() for feature in layer]
    assert [row["name"] for row in rows] == ["house 0", "house 1"]
    assert rows[0] == {"name": "house 0"} | {
        field_name(name, 0): value for name, value in zip(VALUES, [0.3, 0.1, 0.2, None, 0.0], strict=True)
    }
    assert dataset.GetLayerByName("layer_styles").GetFeatureCount() == 1
    counts = count_footprints(path)
    assert counts is not None
    assert (counts.total, dict(counts.by_buffer)) == (2, {"0 m": [2, 2, 2, 1, 1]})
    assert count_footprints(tmp_path / "none.gpkg") is None


def test_a_run_with_other_buffers_and_fields_replaces_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, numbers = tmp_path / "out.gpkg", np.array([1])
    houses = gdal.OpenEx(str(write_vector(tmp_path / "a.gpkg", [rectangle(1, 1, 2, 2)])))
    source = ogr.GetDriverByName("Memory").CreateDataSource("")
    roads = source.CreateLayer("roads", utm())
    roads.CreateField(ogr.FieldDefn("width", ogr.OFTReal))
    roads.CreateFeature(ogr.Feature(roads.GetLayerDefn()))
    write_footprints(path, houses.GetLayer(0), numbers, [0.0], np.zeros((1, 1, 5)))
    write_footprints(path, houses.GetLayer(0), numbers, [10.0], np.zeros((1, 1, 5)))
    write_footprints(path, roads, np.array([0]), [0.0], np.zeros((1, 1, 5)))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.gpkg", path]
    assert not caplog.messages


def test_the_report_measures_footprints(finished: Path, small_events: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "results"))
    dataset = gdal.OpenEx(str(results / "stage2" / FIRE / config.REGIONS_NAME), gdal.OF_VECTOR)
    layer = dataset.GetLayer(0)
    outline = next(iter([json.loads(feature.GetGeometryRef().ExportToJson()) for feature in layer]))
    crs = layer.GetSpatialRef().GetAuthorityCode(None)
    name = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs}"}}
    content = {
        "type": "FeatureCollection",
        "crs": name,
        "features": [{"type": "Feature", "properties": {}, "geometry": outline}],
    }
    path = tmp_path / "buildings.geojson"
    path.write_text(json.dumps(content))
    roots = ["--data-root", small_events, "--stage1-root", results / "stage1", "--result-root", results / "stage2"]
    flags = ["--output", tmp_path / "report", "--event", FIRE, "--footprints", path, "--footprint-buffers", "0,5"]
    assert run_report.main([*map(str, (*roots, *flags))]) == 0
    counts = count_footprints(results / "stage2" / FIRE / config.FOOTPRINTS_NAME)
    assert counts is not None
    assert counts.by_buffer["0 m"] == [1, 1, 1, 1, 1]  # the region itself
    page = next((tmp_path / "report" / "events").glob("*.html")).read_text("utf-8")
    assert "Footprints" in page
    assert "within 5 m" in page
    with pytest.raises(UsageError, match="not found"):
        run_report.main([*map(str, (*roots, *flags[:4], "--footprints", tmp_path / "none.gpkg"))])


def test_without_a_crs_only_the_footprint_itself_is_measured(tmp_path: Path) -> None:
    scores = np.ones((20, 20), np.float32)
    write_raster(tmp_path / "map.tif", MemoryRaster(scores), Georeference(None, (0, 1, 0, 0, 0, -1)), {}, ["score"])
    (tmp_path / "utm").mkdir()
    rasters = rasters_of(tmp_path / "utm", scores)._replace(scores=ScoreMap(tmp_path / "map.tif"))
    dataset = gdal.GetDriverByName("GPKG").Create(str(tmp_path / "a.gpkg"), 0, 0, 0, gdal.GDT_Unknown)
    layer = dataset.CreateLayer("houses", None, ogr.wkbPolygon)
    feature = ogr.Feature(layer.GetLayerDefn())
    feature.SetGeometry(ogr.CreateGeometryFromWkt("POLYGON((2 -2, 4 -2, 4 -4, 2 -4, 2 -2))"))
    layer.CreateFeature(feature)
    del feature, layer, dataset
    path = tmp_path / "a.gpkg"
    values = measured(path, rasters, 0.0, 10.0)
    assert values[0, 0, 0] == 1
    assert np.isnan(values[0, 1]).all()
