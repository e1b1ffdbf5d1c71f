from datetime import date, timedelta

import pytest

from catalogs.query import Box, Query
from utils import UsageError

BOX = Box(10.0, 40.0, 12.0, 42.0)


def test_box_keeps_its_numbers() -> None:
    assert Box.of([10, 40, 12, 42]) == BOX
    assert Box.of([-180, -90, 180, 90]) == (-180, -90, 180, 90)
    assert str(Box(-1.5, 2.0, 3.25, 4.0)) == "-1.5 2 3.25 4"


@pytest.mark.parametrize(
    "numbers",
    [
        (10, 42, 12, 40),
        (10, 40, 12, 40),
        (10, -91, 12, 40),
        (10, 40, 12, 91),
        (10, 40, 181, 42),
        (-181, 40, 12, 42),
        (float("nan"), 40, 12, 42),
        (10, float("nan"), 12, 42),
    ],
)
def test_impossible_box_is_refused(numbers: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="south below north"):
        Box.of(numbers)


@pytest.mark.parametrize("numbers", [(179, 40, -179, 42), (12, 40, 10, 42), (10, 40, 10, 42)])
def test_box_over_the_antimeridian_is_refused_by_name(numbers: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="antimeridian"):
        Box.of(numbers)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((11, 41, 13, 43), True),
        ((0, 0, 50, 50), True),
        ((10.5, 40.5, 11, 41), True),
        ((12, 42, 13, 43), True),  # a corner
        ((12.1, 40, 13, 42), False),
        ((8, 40, 9.9, 42), False),
        ((10, 42.1, 12, 43), False),
        ((10, 38, 12, 39.9), False),
        ((11, 41, 0, 13, 43, 500), True),  # with heights
        ((12.1, 40, 0, 13, 42, 41), False),
        ((170, 30, -170, 50), False),  # over the antimeridian
        ((11, 30, -170, 50), True),
        ((170, 30, 11, 50), True),
        ((11, 43, -170, 50), False),
    ],
)
def test_boxes_intersect(other: tuple[float, ...], expected: bool) -> None:
    assert BOX.intersects(other) is expected


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(175.0, 30.0, 178.0, 50.0), True),
        (Box(-178.0, 30.0, -175.0, 50.0), True),
        (Box(-169.0, 30.0, 169.0, 50.0), False),
        (Box(-180.0, 30.0, 180.0, 50.0), True),
    ],
)
def test_item_over_the_antimeridian_lies_on_both_sides(box: Box, expected: bool) -> None:
    assert box.intersects((170, 30, -170, 50)) is expected


def test_query_spans_its_period() -> None:
    query = Query(
        "", None, "visual", False, BOX, date(2021, 7, 1), timedelta(days=365), timedelta(days=30), dates=6, max_cloud=20
    )
    assert (query.first, query.last) == (date(2020, 7, 1), date(2021, 7, 31))
