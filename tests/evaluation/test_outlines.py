import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from osgeo import ogr, osr

from eval_metrics import BinaryMap
from evaluation.outlines import simplify_outline
from evaluation.polygons import Regions, find_regions, simplify_regions
from rasters.geotiff import Georeference
from rasters.raster import MemoryRaster
from tests.helpers import property_test
from tests.tiffs import NOWHERE, crs

METRES_PER_DEGREE = 111_195  # on a sphere; 0.3 % more or less on the ellipsoid
FEET = osr.SpatialReference('LOCAL_CS["quarry grid",UNIT["foot",0.3048]]')


def all_rings(outline: ogr.Geometry) -> list[list[list[tuple[float, ...]]]]:
    return [[ring.GetPoints() for ring in polygon] for polygon in outline]


def found(small: np.ndarray, georeference: Georeference) -> Regions:
    binary = BinaryMap(small, *(np.arange(length) for length in small.shape))
    return find_regions(binary, MemoryRaster(np.ones(small.shape, np.float32)), georeference)


@property_test
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.floats(0, 8))
def test_simplified_outlines_are_valid_and_within_the_tolerance(small: np.ndarray, metres: float) -> None:
    # Pixels of about 1 m. One degree of longitude is as long as one of latitude on the equator.
    place = Georeference(crs(4326), (10, 1 / METRES_PER_DEGREE, 0, 0, 0, -1 / METRES_PER_DEGREE))
    before = found(small, place)
    for old, new in zip(before.regions, simplify_regions(before, metres).regions, strict=True):
        assert new.outline.IsValid()
        assert new.outline.GetGeometryType() == ogr.wkbMultiPolygon
        assert [len(rings) for rings in all_rings(new.outline)] == [len(rings) for rings in all_rings(old.outline)]
        assert new._replace(outline=old.outline) == old
        kept = {point for rings in all_rings(new.outline) for ring in rings for point in ring}
        points = {point for rings in all_rings(old.outline) for ring in rings for point in ring}
        assert kept <= points
        boundary = new.outline.Boundary()
        for x, y in points - kept:
            point = ogr.Geometry(ogr.wkbPoint)
            point.AddPoint_2D(x, y)
            assert boundary.Distance(point) * METRES_PER_DEGREE <= metres * 1.01 + 1e-6


@pytest.mark.parametrize(
    ("georeference", "metres"),
    [
        (Georeference(crs(32632), (500_000.0, 10, 0, 4_200_000, 0, -10)), 10),
        (Georeference(crs(3857), (1e6, 20, 0, 8_399_737.89, 0, -20)), 10),  # 60 degrees: twice as long on the map
        (Georeference(crs(4326), (10, 20 / METRES_PER_DEGREE, 0, 60, 0, -10 / METRES_PER_DEGREE)), 10),
        (Georeference(crs(2263), (1e6, 10, 0, 2e5, 0, -10)), 3.048),
        (Georeference(FEET, (0, 10, 0, 0, 0, -10)), 3.048),
    ],
)
def test_the_tolerance_is_in_metres_on_the_ground(georeference: Georeference, metres: float) -> None:
    """A notch of 1 pixel, which is `metres` wide, is simplified by a higher tolerance only."""
    small = np.ones((6, 6), bool)
    small[0, 0] = False
    (region,), crs_of_outline, _ = found(small, georeference)
    vertices = []
    for factor in (0.6, 0.8):  # the corner of the notch is 0.71 pixels from the diagonal
        simple = simplify_outline(region.outline, crs_of_outline, factor * metres)
        assert simple is not None
        vertices.append(len(all_rings(simple)[0][0]))
    assert vertices == [7, 6]


def test_without_crs_there_is_no_simplified_outline() -> None:
    (region,), crs_of_outline, _ = found(np.ones((2, 2), bool), NOWHERE)
    assert simplify_outline(region.outline, crs_of_outline, 1) is None
