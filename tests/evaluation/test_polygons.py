import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from osgeo import gdal, ogr, osr

from eval_metrics import BinaryMap
from evaluation.explanations import NOT_COMPARED, RegionExplanation
from evaluation.polygons import (
    LAYER,
    PlacedRegion,
    Regions,
    find_regions,
    read_regions_metadata,
    simplify_regions,
    write_geojson,
    write_regions,
)
from rasters.geotiff import Georeference
from rasters.raster import MemoryRaster
from tests.helpers import property_test, whole
from tests.tiffs import NOWHERE, TRANSFORM, crs
from utils import EventError

SMALL = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]], bool)  # two regions, one joined at a corner
ROWS, COLUMNS = np.array([0, 0, 1, 2, 2, 3]), np.array([0, 1, 1, 1, 2, 2, 3, 3])
BINARY = BinaryMap(SMALL, ROWS, COLUMNS)  # 6 x 8 pixels
SCORES = np.where(np.arange(6)[:, None] < 4, np.float32(0.25), np.float32(0.75)) + np.zeros((6, 8), np.float32)
UTM = Georeference(crs(32632), TRANSFORM)
FIELDS = ["region", "mean_score", "max_score", "area_m2", "area_pixels", "centroid_x", "centroid_y"]


class Explanation(MemoryRaster):
    dates = ("20190501", "it's 2020")


# The lower region, 1, was compared with both dates. The upper one, 2, was compared with the second only.
EXPLANATION = Explanation(
    np.where(
        np.arange(6)[:, None, None] < 4,
        np.array([NOT_COMPARED, 0.75, NOT_COMPARED], np.float32),
        np.array([0.25, -0.5, 0.5], np.float32),
    )
    + np.zeros((6, 8, 1), np.float32)
)


def regions(
    georeference: Georeference = UTM, binary: BinaryMap = BINARY, scores: np.ndarray = SCORES
) -> list[PlacedRegion]:
    return find_regions(binary, MemoryRaster(scores), georeference).regions


def found(georeference: Georeference = UTM) -> Regions:
    return find_regions(BINARY, MemoryRaster(SCORES), georeference)


def explained(georeference: Georeference = UTM) -> Regions:
    return find_regions(BINARY, MemoryRaster(SCORES), georeference, EXPLANATION)


def test_region_statistics_are_computed_from_its_pixels() -> None:
    scores = SCORES.copy()
    scores[0, 0], scores[0, 1] = 0.5, np.nan
    lower, upper = regions(scores=scores)
    assert lower.region[:3] == (0.75, 0.75, 7)
    # 2 x 4 pixels in the upper rows, one of which has no data, and 1 x 2 in the third.
    assert upper.region[:3] == (pytest.approx((8 * 0.25 + 0.5) / 9), 0.5, 9)


def test_outlines_follow_pixel_edges() -> None:
    lower, upper = regions()
    assert lower.outline.GetEnvelope() == (500_000.5, 500_004, 4_200_000 - 3, 4_200_000 - 2.5)
    assert lower.centroid == (500_002.25, 4_200_000 - 2.75)
    assert upper.outline.GetGeometryCount() == 2  # they touch at a corner
    assert upper.outline.GetArea() == 10 * 0.25
    assert [region.outline.IsValid() for region in (lower, upper)] == [True, True]


def test_an_empty_map_has_no_regions() -> None:
    assert regions(binary=BinaryMap(np.zeros_like(SMALL), ROWS, COLUMNS)) == []


def test_without_georeference_coordinates_are_pixels_with_y_upwards() -> None:
    lower, _ = regions(NOWHERE)
    assert lower.outline.GetEnvelope() == (1, 8, -6, -5)
    assert lower.area_m2 is None


def test_outlines_are_georeferenced_by_ground_control_points() -> None:
    points = tuple(gdal.GCP(500_000 + 0.5 * x, 4_200_000 - 0.5 * y, 0, x, y) for x in (0, 8) for y in (0, 6))
    lower, _ = regions(Georeference(gcps=points, gcp_spatial_reference=crs(32632)))
    assert lower.outline.GetEnvelope() == pytest.approx((500_000.5, 500_004, 4_199_997, 4_199_997.5), abs=1e-6)
    assert lower.area_m2 == pytest.approx(7 * 0.25, rel=1e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_control_points_give_no_georeference(count: int, caplog: pytest.LogCaptureFixture) -> None:
    points = tuple(gdal.GCP(500_000 + x, 4_200_000, 0, x, 0) for x in range(count))
    without = find_regions(BINARY, MemoryRaster(SCORES), Georeference(gcps=points, gcp_spatial_reference=crs(32632)))
    assert without.crs is None
    assert without.regions[0].outline.GetEnvelope() == (1, 8, -6, -5)
    assert without.regions[0].area_m2 is None


def ellipsoid_area(south: float, north: float, degrees_east: float) -> float:
    """Area on WGS 84 between two parallels, in square metres, by the closed form of the integral."""
    a, f = 6_378_137.0, 1 / 298.257223563
    e = math.sqrt(f * (2 - f))

    def zone(latitude: float) -> float:
        s = math.sin(math.radians(latitude))
        return s / (2 * (1 - (e * s) ** 2)) + math.log((1 + e * s) / (1 - e * s)) / (4 * e)

    return a**2 * (1 - e**2) * math.radians(degrees_east) * (zone(north) - zone(south))


@pytest.mark.parametrize("latitude", [0.0, 47.0, -60.0])
def test_areas_of_a_geographic_crs_are_computed_on_the_ellipsoid(latitude: float) -> None:
    step = 1 / 3600
    lower, _ = regions(Georeference(crs(4326), (10, step, 0, latitude, 0, -step)))
    assert lower.area_m2 == pytest.approx(ellipsoid_area(latitude - 6 * step, latitude - 5 * step, 7 * step), rel=1e-6)
    assert lower.centroid == pytest.approx((10 + 4.5 * step, latitude - 5.5 * step))


def test_areas_in_web_mercator_are_corrected_for_its_scale() -> None:
    north = 8_399_737.89  # 60 degrees
    lower, _ = regions(Georeference(crs(3857), (1e6, 10, 0, north, 0, -10)))
    assert lower.outline.GetArea() == pytest.approx(700)
    assert lower.area_m2 == pytest.approx(700 / 4, rel=0.01)  # the square of cos 60; the ellipsoid adds a little


def test_areas_in_utm_are_corrected_for_its_scale() -> None:
    lower, _ = regions()
    assert lower.area_m2 == pytest.approx(7 * 0.25 / 0.9996**2, rel=1e-5)  # the scale on the central meridian


def test_areas_in_a_local_crs_use_its_units() -> None:
    local = osr.SpatialReference()
    local.ImportFromWkt('LOCAL_CS["quarry grid",UNIT["foot",0.3048]]')
    lower, _ = regions(Georeference(local, TRANSFORM))
    assert lower.area_m2 == pytest.approx(7 * 0.25 * 0.3048**2)


def test_regions_are_explained_by_the_explanation_map() -> None:
    assert found().dates == ()
    assert found().regions[0].explanation is None
    with_dates = explained()
    assert with_dates.dates == ("20190501", "it's 2020")
    assert [placed.explanation for placed in with_dates.regions] == [
        RegionExplanation((0.25, -0.5), 0.5),
        RegionExplanation((None, 0.75), None),
    ]
    assert [placed._replace(explanation=None)[::2] for placed in with_dates.regions] == [
        placed[::2] for placed in found().regions
    ]


def test_simplified_regions_keep_the_values_of_their_pixels() -> None:
    rows, columns = np.mgrid[:40, :40]
    disk = BinaryMap((rows - 20) ** 2 + (columns - 20) ** 2 < 300, np.arange(40), np.arange(40))
    whole_disk = find_regions(disk, MemoryRaster(np.ones((40, 40), np.float32)), UTM)
    simple = simplify_regions(whole_disk, 0.6)
    assert simple.regions[0].outline.Boundary().Length() < 0.9 * whole_disk.regions[0].outline.Boundary().Length()
    assert simple.regions[0][2:] == whole_disk.regions[0][2:]
    assert simple.regions[0].region == whole_disk.regions[0].region


def test_without_crs_outlines_are_not_simplified(caplog: pytest.LogCaptureFixture) -> None:
    regions_in_pixels = found(NOWHERE)
    assert simplify_regions(regions_in_pixels, 1) is regions_in_pixels
    assert "not simplified" in caplog.text


@property_test
@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))), st.integers(0, 1000))
def test_outlines_are_valid_and_cover_exactly_the_pixels_that_are_set(small: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = (np.sort(np.append(np.arange(length), rng.integers(0, length, 5))) for length in small.shape)
    binary = BinaryMap(small, rows, columns)
    placed = regions(NOWHERE, binary, np.ones(binary.shape, np.float32))
    burnt = gdal.GetDriverByName("MEM").Create("", len(columns), len(rows), 1, gdal.GDT_Int32)
    burnt.SetGeoTransform((0, 1, 0, 0, 0, -1))
    source = ogr.GetDriverByName("Memory").CreateDataSource("")
    layer = source.CreateLayer("", None, ogr.wkbMultiPolygon)
    layer.CreateField(ogr.FieldDefn("number", ogr.OFTInteger))
    for number, region in enumerate(placed, 1):
        assert region.outline.IsValid()
        assert region.outline.GetArea() == region.region.pixels
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometry(region.outline)
        feature.SetField(0, number)
        layer.CreateFeature(feature)
    gdal.RasterizeLayer(burnt, [1], layer, options=["ATTRIBUTE=number"])
    np.testing.assert_array_equal(burnt.ReadAsArray() > 0, whole(binary))


# --- Files -----------------------------------------------------------------------------------------------------------
def layer_names(dataset: gdal.Dataset) -> list[str]:
    return [dataset.GetLayer(index).GetName() for index in range(dataset.GetLayerCount())]


def records(layer: ogr.Layer) -> list[dict]:
    return [feature.items() for feature in layer]


def test_a_geopackage_holds_the_regions(tmp_path: Path) -> None:
    path = tmp_path / "event" / "regions.gpkg"
    write_regions(path, found(), {"event": "4_火灾", "category": "4 fire"})
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    assert layer_names(dataset) == [LAYER, "layer_styles"]
    layer = dataset.GetLayer(LAYER)
    assert layer.GetSpatialRef().IsSame(crs(32632))
    first, second = (feature.ExportToJson(as_object=True) for feature in layer)
    assert first["geometry"]["type"] == second["geometry"]["type"] == "MultiPolygon"
    assert first["properties"] == {
        "region": 1,
        "mean_score": 0.75,
        "max_score": 0.75,
        "area_m2": pytest.approx(1.7514, abs=1e-4),
        "area_pixels": 7,
        "centroid_x": 500_002.25,
        "centroid_y": 4_199_997.25,
        "event": "4_火灾",
        "category": "4 fire",
    }
    assert second["properties"]["area_pixels"] == 10
    assert list(path.parent.iterdir()) == [path]
    assert read_regions_metadata(path) is not None


def test_a_layer_is_written_without_regions_or_crs(tmp_path: Path) -> None:
    write_regions(tmp_path / "regions.gpkg", Regions([], None), {})
    dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
    assert dataset.GetLayer(LAYER).GetFeatureCount() == 0
    write_regions(tmp_path / "regions.gpkg", found(NOWHERE), {})
    dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
    assert dataset.GetLayer(LAYER).GetSpatialRef().IsLocal()
    first, _ = dataset.GetLayer(LAYER)
    assert first.GetField("area_m2") is None


def test_a_crs_that_wkt1_cannot_express_is_kept(tmp_path: Path) -> None:
    rotated_pole = osr.SpatialReference()
    rotated_pole.SetFromUserInput("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18")
    write_regions(tmp_path / "regions.gpkg", found(Georeference(rotated_pole, TRANSFORM)), {})
    dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
    assert dataset.GetLayer(LAYER).GetFeatureCount() == 2
    assert dataset.GetLayer(LAYER).GetSpatialRef().IsSame(rotated_pole)


def test_explained_regions_have_the_fields_of_the_explanation(tmp_path: Path) -> None:
    write_regions(tmp_path / "regions.gpkg", explained(), {"event": "4_fire"})
    dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
    assert layer_names(dataset) == [LAYER, "region_dates", "layer_styles"]
    first, second = records(dataset.GetLayer(LAYER))
    names = [*FIELDS, "most_similar_date", "similarity", "usual_score", "novelty", "event"]
    assert list(first) == names
    assert [first[name] for name in names[7:]] == ["20190501", 0.25, 0.5, 0.25, "4_fire"]
    assert [second[name] for name in names[7:]] == ["it's 2020", 0.75, None, None, "4_fire"]


def test_a_region_that_was_compared_with_no_date_has_nulls(tmp_path: Path) -> None:
    lower, _ = regions()
    alone = lower._replace(explanation=RegionExplanation((None,), None))
    write_regions(tmp_path / "regions.gpkg", Regions([alone], UTM.spatial_reference, ("20190501",)), {})
    dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
    (record,) = records(dataset.GetLayer(LAYER))
    assert list(record.values())[7:] == [None] * 4
    assert records(dataset.GetLayer("region_dates")) == [{"region": 1, "date": "20190501", "similarity": None}]


def test_the_similarities_with_all_dates_are_in_a_related_table(tmp_path: Path) -> None:
    write_regions(tmp_path / "regions.gpkg", explained(), {})
    dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
    assert records(dataset.GetLayer("region_dates")) == [
        {"region": 1, "date": "20190501", "similarity": 0.25},
        {"region": 1, "date": "it's 2020", "similarity": -0.5},
        {"region": 2, "date": "20190501", "similarity": None},
        {"region": 2, "date": "it's 2020", "similarity": 0.75},
    ]
    relation = dataset.GetRelationship(dataset.GetRelationshipNames()[0])
    assert (relation.GetLeftTableName(), relation.GetLeftTableFields()) == (LAYER, ["region"])
    assert (relation.GetRightTableName(), relation.GetRightTableFields()) == ("region_dates", ["region"])


def test_without_explanation_there_is_no_table_of_dates(tmp_path: Path) -> None:
    write_regions(tmp_path / "regions.gpkg", found(), {"event": "4_fire"})
    dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
    assert layer_names(dataset) == [LAYER, "layer_styles"]
    assert list(records(dataset.GetLayer(LAYER))[0]) == [*FIELDS, "event"]
    assert not dataset.GetRelationshipNames()


def test_only_the_style_of_explained_regions_has_a_map_tip(tmp_path: Path) -> None:
    styles = []
    for written in (found(), explained()):
        write_regions(tmp_path / "regions.gpkg", written, {})
        dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
        (style,) = records(dataset.GetLayer("layer_styles"))
        styles.append(style["styleQML"])
    assert ["<mapTip" in style for style in styles] == [False, True]


@pytest.mark.parametrize("missing", [1, 100, 0.2, 0.7, 1.0])
def test_a_truncated_geopackage_is_not_whole(tmp_path: Path, missing: float) -> None:
    path = tmp_path / "regions.gpkg"
    assert read_regions_metadata(path) is None
    write_regions(path, Regions(explained().regions * 500, UTM.spatial_reference, EXPLANATION.dates), {})
    assert read_regions_metadata(path) is not None
    content = path.read_bytes()
    cut = missing if isinstance(missing, int) else int(len(content) * missing)
    path.write_bytes(content[: len(content) - cut])
    assert read_regions_metadata(path) is None


def test_a_full_disk_leaves_the_existing_file(small_disk: Path) -> None:
    path = small_disk / "regions.gpkg"
    write_regions(path, found(), {})
    with pytest.raises(EventError, match="No space left"):
        write_regions(path, Regions(regions() * 5000, UTM.spatial_reference), {})
    assert list(small_disk.iterdir()) == [path]
    assert read_regions_metadata(path) is not None


# --- GeoJSON ---------------------------------------------------------------------------------------------------------
def geojson(path: Path) -> list[dict]:
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert "crs" not in collection  # RFC 7946: always WGS 84
    return collection["features"]


def rings(feature: dict) -> list[list]:
    """The rings of all polygons of a feature."""
    geometry = feature["geometry"]
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    return [ring for polygon in polygons for ring in polygon]


def winding(ring: list) -> float:
    """Twice the signed area of a ring: above 0 if it is anticlockwise."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))


def test_geojson_has_the_fields_of_the_geopackage(tmp_path: Path) -> None:
    attributes = {"event": "4_火灾", "category": "4 fire"}
    write_regions(tmp_path / "regions.gpkg", explained(), attributes)
    write_geojson(tmp_path / "event" / "regions.geojson", explained(), attributes)
    dataset = gdal.OpenEx(str(tmp_path / "regions.gpkg"), gdal.OF_VECTOR)
    features = geojson(tmp_path / "event" / "regions.geojson")
    assert [feature["properties"] for feature in features] == records(dataset.GetLayer(LAYER))
    assert features[1]["properties"]["novelty"] is None
    assert [path.name for path in (tmp_path / "event").iterdir()] == ["regions.geojson"]


@pytest.mark.parametrize(
    "georeference",
    [UTM, Georeference(crs(4326), (9, 1e-5, 0, 38, 0, -1e-5)), Georeference(crs(3857), (1e6, 1, 0, 4.5e6, 0, -1))],
)
def test_geojson_is_in_longitude_and_latitude_with_outer_rings_anticlockwise(
    tmp_path: Path, georeference: Georeference
) -> None:
    ring = np.pad(np.zeros((1, 2), bool), ((1, 1), (1, 1)), constant_values=True)
    binary = BinaryMap(ring, np.arange(3), np.arange(4))
    placed = find_regions(binary, MemoryRaster(np.ones((3, 4), np.float32)), georeference)
    write_geojson(tmp_path / "regions.geojson", placed, {})
    outer, hole = rings(geojson(tmp_path / "regions.geojson")[0])
    assert all(8.9 < x < 9.1 and 37 < y < 39 for x, y in (*outer, *hole))
    assert winding(outer) > 0 > winding(hole)


@pytest.mark.parametrize(
    "georeference",
    [
        Georeference(crs(32660), (829_600.0, 100, 0, 1_000_000, 0, -100)),
        Georeference(crs(4326), (179.9975, 1e-3, 0, 9, 0, -1e-3)),
    ],
)
def test_geojson_cuts_polygons_at_the_antimeridian(tmp_path: Path, georeference: Georeference) -> None:
    placed = find_regions(BINARY, MemoryRaster(SCORES), georeference)
    write_geojson(tmp_path / "regions.geojson", placed, {})
    lower, _ = geojson(tmp_path / "regions.geojson")
    assert lower["geometry"]["type"] == "MultiPolygon"
    east, west = sorted(rings(lower), key=lambda ring: -ring[0][0])
    assert all(179.9 < x <= 180 and 8 < y < 10 for x, y in east)
    assert all(-180 <= x < -179.9 and 8 < y < 10 for x, y in west)
    assert winding(east) > 0 < winding(west)


def test_geojson_without_regions_is_written(tmp_path: Path) -> None:
    write_geojson(tmp_path / "regions.geojson", Regions([], UTM.spatial_reference), {})
    assert geojson(tmp_path / "regions.geojson") == []


@pytest.mark.parametrize(
    "georeference",
    [
        NOWHERE,
        Georeference(osr.SpatialReference('LOCAL_CS["quarry grid",UNIT["foot",0.3048]]'), TRANSFORM),
        Georeference(crs(4326), TRANSFORM),  # no such latitude
        Georeference(crs(32632), (1e12, 0.5, 0, 4_200_000, 0, -0.5)),  # outside of the projection
    ],
)
def test_without_a_place_in_wgs84_no_geojson_is_written(
    tmp_path: Path, georeference: Georeference, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "regions.geojson"
    write_geojson(path, found(georeference), {})
    assert not path.exists()
    assert str(path) in caplog.text
    assert "WGS 84" in caplog.text


def test_a_full_disk_leaves_the_existing_geojson(small_disk: Path) -> None:
    path = small_disk / "regions.geojson"
    write_geojson(path, found(), {})
    with pytest.raises(EventError, match="No space left"):
        write_geojson(path, Regions(regions() * 5000, UTM.spatial_reference), {})
    assert list(small_disk.iterdir()) == [path]
    assert len(geojson(path)) == 2
