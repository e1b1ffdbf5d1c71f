"""Items of a catalog as scenes, and scenes as acquisitions."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalogs.documents import CatalogIO, Document, Found, Item
from catalogs.query import Box, Query
from catalogs.scenes import Acquisition, find_scenes, group
from tests.catalogs.made import lonlat_box, make_item

BOX = Box(*lonlat_box((500_100.0, 4_649_700.0), 50.0, 50.0))
QUERY = Query(
    stac="catalog.json",
    collection=None,
    asset="visual",
    signed=False,
    box=BOX,
    event_date=date(2021, 7, 20),
    before=timedelta(days=4000),
    after=timedelta(days=30),
    dates=6,
    max_cloud=20,
)


def acquisitions(*items: dict[str, Any]) -> list[Acquisition]:
    found = Found([Item(item, f"https://x.org/{number}.json", None, None) for number, item in enumerate(items)])
    scenes, unusable = find_scenes(found, QUERY)
    assert not unusable
    return group(scenes)


def item(name: str, time: str, **more: Any) -> dict[str, Any]:
    return make_item(name, time, {"visual": f"{name}.tif"}, **more)


def names(found: list[Acquisition]) -> list[list[str]]:
    return [[scene.item for scene in one.scenes] for one in found]


@pytest.mark.parametrize("collections", [("a", "b", "c"), (None, None, None)])
def test_the_same_identifier_in_several_collections_is_several_items(collections: tuple[str | None, ...]) -> None:
    times = ("2019-06-01T10:00:00Z", "2020-06-01T10:00:00Z", "2021-07-21T10:00:00Z")
    found = acquisitions(*(item("same", time, collection=name) for time, name in zip(times, collections, strict=True)))
    assert [one.date.year for one in found] == [2019, 2020, 2021]


def test_the_same_item_of_one_collection_counts_once() -> None:
    twice = [item("same", "2019-06-01T10:00:00Z", collection="a") for _ in range(2)]
    assert names(acquisitions(*twice)) == [["same"]]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_latest_processing_of_an_acquisition_is_used(reverse: bool) -> None:
    time = "2020-06-01T10:00:00Z"
    processed = [
        item("n0209", time, **{"s2:processing_baseline": "02.09", "created": "2024-01-01T00:00:00Z"}),
        item("n0500", time, **{"s2:processing_baseline": "05.00", "created": "2022-01-01T00:00:00Z"}),
        item("n0500_again", time, **{"s2:processing_baseline": "05.00", "created": "2023-01-01T00:00:00Z"}),
        item("neighbour", time, corner=(500_050.0, 4_649_776.0), **{"s2:processing_baseline": "02.09"}),
    ]
    found = acquisitions(*(processed[::-1] if reverse else processed))
    assert names(found) == [["n0500_again", "neighbour"]]


@pytest.mark.parametrize("cover", [-1, 101, "12", True, None, float("nan")])
def test_a_cloud_cover_that_is_none_is_unknown(cover: object) -> None:
    (found,) = acquisitions(item("a", "2020-06-01T10:00:00Z", **{"eo:cloud_cover": cover}))
    assert found.cloud_cover is None
    (found,) = acquisitions(item("a", "2020-06-01T10:00:00Z", **{"tile:clouds_percent": cover, "eo:cloud_cover": 0}))
    assert found.cloud_cover == 0


def test_a_pass_over_midnight_is_one_acquisition() -> None:
    found = acquisitions(
        item("late", "2020-05-31T23:58:00Z"),
        item("early", "2020-06-01T00:03:00Z"),
        item("evening", "2020-06-01T23:50:00Z"),
        item("other", "2020-06-01T00:01:00Z", platform="sat-b"),
    )
    assert [(one.date.isoformat(), one.sensor) for one in found] == [
        ("2020-05-31", "sat-a"),
        ("2020-06-01", "sat-a"),
        ("2020-06-01", "sat-b"),
    ]
    assert names(found) == [["early", "late"], ["evening"], ["other"]]


def test_a_document_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    path.write_bytes(b'\xef\xbb\xbf{"type": "Catalog"}')
    assert CatalogIO(str(path)).document(str(path)) == Document({"type": "Catalog"}, str(path))
