"""Pixel sizes on the ground, and CRSs that are the same."""

import math

import pytest
from osgeo import gdal, osr

from rasters.geotiff import Georeference
from rasters.place import find_place, pixel_metres, same_crs
from tests.tiffs import crs

SHAPE = (1000, 1000)


def test_utm_pixels_are_corrected_for_the_scale_of_the_projection() -> None:
    width = pixel_metres(Georeference(crs(32633), (500_000.0, 0.5, 0, 4_649_776.0, 0, -0.5)), SHAPE)
    assert width == pytest.approx(0.5 / 0.9996, rel=1e-5)  # on the central meridian


def test_web_mercator_pixels_are_corrected_for_latitude() -> None:
    north = 6_378_137 * math.log(math.tan(math.pi / 4 + math.radians(60) / 2))
    width = pixel_metres(Georeference(crs(3857), (0.0, 10.0, 0, north, 0, -10.0)), SHAPE)
    assert width == pytest.approx(10 * math.cos(math.radians(60)), rel=5e-3)


def test_degrees_are_converted_to_metres() -> None:
    degree = 1e-5
    on_the_equator = Georeference(crs(4326), (10.0, degree, 0, degree * 500, 0, -degree))
    assert pixel_metres(on_the_equator, SHAPE) == pytest.approx(1.113195, rel=1e-5)  # 2 pi a / 360 e5
    northern = Georeference(crs(4326), (10.0, degree, 0, 60.0, 0, -degree))
    assert pixel_metres(northern, SHAPE) == pytest.approx(0.5580, rel=1e-3)


def test_pixel_width_in_feet_and_of_rotated_images() -> None:
    feet = crs(2263)  # New York, US survey feet
    width = pixel_metres(Georeference(feet, (1_000_000.0, 1.0, 0, 200_000.0, 0, -1.0)), SHAPE)
    assert width == pytest.approx(1200 / 3937, rel=1e-4)
    rotated = Georeference(crs(32633), (500_000.0, 0.3, 0.4, 4_649_776.0, 0.4, -0.3))
    assert pixel_metres(rotated, SHAPE) == pytest.approx(0.5, rel=1e-3)


def test_pixel_width_from_ground_control_points() -> None:
    corners = [(x, y) for x in (0, 1000) for y in (0, 1000)]
    points = tuple(gdal.GCP(500_000 + 2 * x, 4_649_776 - 2 * y, 0, x, y) for x, y in corners)
    georeference = Georeference(gcps=points, gcp_spatial_reference=crs(32633))
    assert pixel_metres(georeference, SHAPE) == pytest.approx(2 / 0.9996, rel=1e-4)


def test_lengths_and_areas_of_a_local_crs_use_its_units() -> None:
    site = osr.SpatialReference('LOCAL_CS["site",UNIT["foot",0.3048]]')
    georeference = Georeference(site, (0.0, 2.0, 0, 0, 0, -2.0))
    assert pixel_metres(georeference, SHAPE) == pytest.approx(0.6096)
    place = find_place(georeference, SHAPE)
    assert place.pixel_area == pytest.approx(0.6096**2)
    assert place.lattice is None  # its position on Earth is unknown


@pytest.mark.parametrize(
    "georeference",
    [
        Georeference(),
        Georeference(crs(32633)),
        Georeference(None, (500_000.0, 0.5, 0, 4_649_776.0, 0, -0.5)),
        Georeference(crs(4326), (10.0, 1.0, 0, 4_649_776.0, 0, -1.0)),  # no such latitude
    ],
)
def test_pixel_width_is_none_without_georeference(georeference: Georeference) -> None:
    assert pixel_metres(georeference, SHAPE) is None


TOWGS84 = "+towgs84=0,0,0,0,0,0,0"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("EPSG:32633", "EPSG:32633+5773", True),  # with heights above the geoid
        ("EPSG:4326", "EPSG:4979", True),  # with heights above the ellipsoid
        ("EPSG:32633+5773", "EPSG:32632", False),
        ("EPSG:25833", f"+proj=utm +zone=33 +ellps=GRS80 {TOWGS84} +units=m", True),
        ("EPSG:32633", f"+proj=utm +zone=33 +ellps=WGS84 {TOWGS84} +units=m", True),
        ("EPSG:26911", f"+proj=utm +zone=11 +ellps=GRS80 {TOWGS84} +units=m", True),
        ("EPSG:25832", f"+proj=utm +zone=33 +ellps=GRS80 {TOWGS84} +units=m", False),
        ("EPSG:32633", "+proj=utm +zone=33 +ellps=WGS84 +towgs84=100,0,0 +units=m", False),
        # The datum of Austria lies 600 m beside WGS 84.
        (
            "EPSG:31256",
            f"+proj=tmerc +lat_0=0 +lon_0=16.3333333333333 +k=1 +x_0=0 +y_0=-5000000 +ellps=bessel {TOWGS84} +units=m",
            False,
        ),
    ],
)
def test_crs_are_the_same_if_coordinates_are(one: str, other: str, expected: bool) -> None:
    first, second = osr.SpatialReference(), osr.SpatialReference()
    first.SetFromUserInput(one)
    second.SetFromUserInput(other)
    assert same_crs(first, second) is expected
    assert same_crs(second, first) is expected
