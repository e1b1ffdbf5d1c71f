"""The place of a query, from GeoJSON files."""

import json
from pathlib import Path
from typing import Any

import pytest

from catalogs.geojson import box_of_geojson
from catalogs.query import Box
from tests.catalogs.made import lonlat_box
from utils import UsageError

BOX = Box(10.0, 40.0, 12.0, 42.0)
SQUARE = [[[10, 40], [12, 40], [12, 42], [10, 42], [10, 40]]]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "Polygon", "coordinates": SQUARE},
        {"type": "Feature", "properties": {"a": [0, 0]}, "geometry": {"type": "Polygon", "coordinates": SQUARE}},
        {"type": "MultiPolygon", "coordinates": [SQUARE]},
        {"type": "LineString", "coordinates": [[10, 40, 500], [12, 42, 600]]},
        {
            "type": "GeometryCollection",
            "geometries": [{"type": "Point", "coordinates": [10, 42]}, {"type": "Point", "coordinates": [12, 40]}],
        },
        {
            "type": "FeatureCollection",
            "features": [
                {"type": "Feature", "geometry": {"type": "Point", "coordinates": point}}
                for point in ([10, 40], [12, 42])
            ]
            + [{"type": "Feature", "geometry": None}],
        },
    ],
)
def test_geojson_has_a_bounding_box(tmp_path: Path, content: dict[str, Any]) -> None:
    file = tmp_path / "place.geojson"
    for encoding in ("utf-8", "utf-8-sig"):  # with and without a byte order mark
        file.write_text(json.dumps(content), encoding=encoding)
        assert box_of_geojson(file) == BOX


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<kml/>", "is not GeoJSON"),
        ("", "is not GeoJSON"),
        ("[" * 100_000, "is not GeoJSON"),
        ("3", "has no coordinates"),
        ("{}", "has no coordinates"),
        ('{"type": "FeatureCollection", "features": []}', "has no coordinates"),
        ('{"type": "Point", "coordinates": [10, 40]}', "south below north"),
        ('{"type": "LineString", "coordinates": [[500000, 4649776], [500100, 4649876]]}', "in degrees"),
    ],
)
def test_geojson_without_a_box_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "place.geojson"
    file.write_text(text)
    with pytest.raises(UsageError, match=problem) as caught:
        box_of_geojson(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "--bbox" not in str(caught.value)


def test_missing_geojson_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.geojson: cannot be read"):
        box_of_geojson(tmp_path / "none.geojson")
    (tmp_path / "latin.geojson").write_bytes(b'{"name": "\xe9"}')
    with pytest.raises(UsageError, match="is not GeoJSON"):
        box_of_geojson(tmp_path / "latin.geojson")


def in_crs(name: object, line: list[list[float]]) -> dict[str, Any]:
    """A line in a CRS that is named as GeoJSON of 2008 names it."""
    return {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": name}},
        "features": [{"type": "Feature", "geometry": {"type": "LineString", "coordinates": line}}],
    }


@pytest.mark.parametrize("name", ["EPSG:32633", "urn:ogc:def:crs:EPSG::32633"])
def test_geojson_in_a_projected_crs_is_transformed(tmp_path: Path, name: str) -> None:
    file = tmp_path / "place.geojson"

    for x, y in ((500_000.0, 4_649_776.0), (400_000.0, 5_000_000.0)):
        file.write_text(json.dumps(in_crs(name, [[x, y - 50], [x + 50, y]])))
        assert box_of_geojson(file) == pytest.approx(lonlat_box((x, y), 50, 50), abs=1e-9)


def test_coordinates_that_look_like_degrees_are_transformed_too(tmp_path: Path) -> None:
    file = tmp_path / "place.geojson"
    file.write_text(json.dumps(in_crs("EPSG:3857", [[10, 40], [12, 42]])))  # metres from the equator and Greenwich
    box = box_of_geojson(file)
    assert box == pytest.approx([number / 111_319.49 for number in (10, 40, 12, 42)], rel=1e-4)


@pytest.mark.parametrize("name", ["urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326", "urn:ogc:def:crs:EPSG::4326"])
def test_geojson_that_names_degrees_is_kept(tmp_path: Path, name: str) -> None:
    file = tmp_path / "place.geojson"
    file.write_text(json.dumps(in_crs(name, [[10, 40], [12, 42]])))
    assert box_of_geojson(file) == pytest.approx(BOX, abs=1e-12)


@pytest.mark.parametrize(
    ("crs", "problem"),
    [
        ({"type": "name", "properties": {"name": "EPSG:99999"}}, "its CRS EPSG:99999 is not known"),
        ({"type": "name", "properties": {"name": "/etc/passwd"}}, "its CRS /etc/passwd is not known"),
        ({"type": "name", "properties": {}}, "its CRS None is not known"),
        ({"type": "link", "properties": {"href": "http://x.org/crs"}}, "its CRS None is not known"),
        ("EPSG:32633", None),
    ],
)
def test_crs_of_geojson_that_cannot_be_used_is_named(tmp_path: Path, crs: object, problem: str | None) -> None:
    file = tmp_path / "place.geojson"
    file.write_text(json.dumps(in_crs("x", [[500_000, 4_649_776], [500_100, 4_649_876]]) | {"crs": crs}))
    if problem is None:
        assert 14 < box_of_geojson(file).west < 16
        return
    with pytest.raises(UsageError, match=problem) as caught:
        box_of_geojson(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_geojson_in_two_crs_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "place.geojson"
    content = in_crs("EPSG:32633", [[500_000, 4_649_776], [500_100, 4_649_876]])
    content["features"][0]["geometry"]["crs"] = {"type": "name", "properties": {"name": "EPSG:32632"}}
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="names more than one CRS"):
        box_of_geojson(file)
