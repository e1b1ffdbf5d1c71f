"""Turns a catalog's items into scenes, and scenes of one date and sensor into acquisitions."""

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from catalogs.addresses import resolve
from catalogs.documents import Found, Item, mapping, parse_time
from catalogs.geojson import bounds
from catalogs.query import Query
from utils import EventError, UsageError, list_names

# Assets with the clouds of an item; the first one that exists is used. Sentinel-2's scene classification by class:
# 3 cloud shadow, 8 and 9 cloud, 10 cirrus.
CLASSES = ("scl", "SCL")
CLOUD_CLASSES = (3, 8, 9, 10)
CLOUDS = ("cloud",)
CLOUD_PROBABILITY = 50  # percent; from here on a pixel of a probability is cloud
# Properties with the cloud cover of a whole item in percent: Maxar's items have the first one.
CLOUD_COVER = ("tile:clouds_percent", "eo:cloud_cover")
# Properties with the version of the processing: Sentinel-2's items have the first one.
BASELINES = ("s2:processing_baseline", "processing:version")
SAME_PASS = timedelta(minutes=10)  # between scenes of one pass of a sensor
FOOTPRINT_DIGITS = 3  # of degrees: footprints of two processings differ by less


class CloudAsset(NamedTuple):
    """A raster that says where an item has clouds."""

    address: str
    kind: str  # `classes`, `probability` (percent) or `mask` (anything above 0 is cloud)


class Scene(NamedTuple):
    """An item with the asset that is read from it."""

    item: str  # identifier
    time: datetime  # UTC
    sensor: str
    asset: str  # address or path of the GeoTIFF
    footprint: dict[str, Any]  # GeoJSON geometry
    clouds: CloudAsset | None
    cloud_cover: float | None  # percent of the whole item, as the catalog says
    collection: str | None
    licence: str | None
    source: str  # address or path of the item, or of the document that contains it
    processing: tuple[tuple[int, ...], str] = ((), "")  # baseline and time of processing: the greatest is the latest


class Acquisition(NamedTuple):
    """The scenes of one date and sensor, which are mosaicked."""

    date: date  # UTC
    sensor: str
    scenes: tuple[Scene, ...]

    @property
    def text(self) -> str:
        """Text for messages."""
        return f"{self.date} {self.sensor}".strip()

    @property
    def cloud_cover(self) -> float | None:
        """Mean of what the catalog says of its items, percent; None if it does not say it of all."""
        covers = [scene.cloud_cover for scene in self.scenes]
        known = [cover for cover in covers if cover is not None]
        return sum(known) / len(known) if len(known) == len(covers) else None


def find_scenes(found: Found, query: Query) -> tuple[list[Scene], list[str]]:
    """Return the scenes among a search's items that touch the box in the searched period, and why others are unusable.

    Raises UsageError if no item has the wanted asset, or if an identifier that the query names was not found.
    """
    scenes: dict[tuple[str, str], Scene] = {}  # by collection, or else document, and identifier
    unusable = list(found.unusable)
    lacking: list[Item] = []
    for item in found.items:
        name = str(item.content.get("id"))
        if query.images and name not in query.images:
            continue
        try:
            if _matches(item.content, query):
                if query.asset in mapping(item.content, "assets"):
                    scene = _scene(name, item, query)
                    scenes.setdefault((scene.collection or scene.source, name), scene)
                else:
                    lacking.append(item)
        except EventError as error:
            unusable.append(f"{name}: {error}")
    if lacking and not scenes:
        there = sorted({name for item in lacking for name in mapping(item.content, "assets")})
        raise UsageError(f"no item has an asset {query.asset!r}; --asset names one of {', '.join(there) or 'none'}")
    unusable += [f"{item.content.get('id')}: no asset {query.asset!r}" for item in lacking]
    known = {scene.item for scene in scenes.values()}
    unknown = [name for name in query.images if name not in known]
    if unknown:
        missing = f"{list_names(unknown)}: not found at this place from {query.first} to {query.last}"
        reason = next((line for line in unusable if line.startswith(f"{unknown[0]}:")), missing)
        raise UsageError(f"--images: {reason}")
    return list(scenes.values()), unusable


def _matches(content: dict[str, Any], query: Query) -> bool:
    """Return whether an item touches the box in the period. Raises EventError if it says neither where nor when."""
    if not content.get("geometry"):
        raise EventError("has no geometry")
    try:
        box = content.get("bbox") or bounds(content["geometry"])
        touches = query.box.intersects([float(number) for number in box])
    except (IndexError, TypeError, ValueError):
        raise EventError("its bbox is invalid") from None
    return touches and query.first <= _time(content).date() <= query.last


def _time(content: dict[str, Any]) -> datetime:
    properties = mapping(content, "properties")
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        return parse_time(str(text))
    except ValueError:
        raise EventError(f"has no valid date ({text!r})") from None


def _scene(name: str, item: Item, query: Query) -> Scene:
    properties, assets = mapping(item.content, "properties"), mapping(item.content, "assets")
    sensor = next((properties[key] for key in ("platform", "constellation") if properties.get(key)), "")
    covers = [cover for cover in (_percent(properties.get(key)) for key in CLOUD_COVER) if cover is not None]
    return Scene(
        name,
        _time(item.content),
        str(sensor),
        _href(item, assets[query.asset]),
        item.content["geometry"],
        _cloud_asset(item, assets),
        covers[0] if covers else None,
        item.collection or item.content.get("collection"),
        item.licence,
        item.address,
        _processing(properties),
    )


def _percent(value: Any) -> float | None:
    """Return a cloud cover; None for what cannot be one, such as -1 or a text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 100 else None


def _processing(properties: dict[str, Any]) -> tuple[tuple[int, ...], str]:
    baseline = next((str(properties[key]) for key in BASELINES if properties.get(key)), "")
    return tuple(map(int, re.findall(r"\d+", baseline))), str(properties.get("created") or "")


def _href(item: Item, asset: Any) -> str:
    href = asset.get("href") if isinstance(asset, dict) else None
    if not isinstance(href, str) or not href:
        raise EventError("its asset has no address")
    return resolve(item.address, href)


def _cloud_asset(item: Item, assets: dict[str, Any]) -> CloudAsset | None:
    for name in (*CLASSES, *CLOUDS):
        if name in assets:
            asset = assets[name]
            if name in CLASSES:
                return CloudAsset(_href(item, asset), "classes")
            described = f"{asset.get('title', '')} {asset.get('description', '')}".lower()
            return CloudAsset(_href(item, asset), "probability" if "probabilit" in described else "mask")
    return None


def group(scenes: Iterable[Scene]) -> list[Acquisition]:
    """Return the acquisitions of scenes, oldest first.

    A pass of a sensor over midnight UTC is one acquisition, of the date on which it begins.
    """
    groups: dict[tuple[date, str], list[Scene]] = {}
    last: dict[str, tuple[date, datetime]] = {}  # by sensor: date of the acquisition, time of its latest scene
    for scene in sorted(_latest_processing(scenes), key=lambda scene: scene.time):
        day = scene.time.date()
        if scene.sensor in last and scene.time - last[scene.sensor][1] <= SAME_PASS:
            day = last[scene.sensor][0]
        last[scene.sensor] = (day, scene.time)
        groups.setdefault((day, scene.sensor), []).append(scene)
    return [
        Acquisition(day, sensor, tuple(sorted(members, key=lambda scene: scene.item)))
        for (day, sensor), members in sorted(groups.items())
    ]


def _latest_processing(scenes: Iterable[Scene]) -> list[Scene]:
    """Return the scenes without earlier processings of the same acquisition: same time, sensor and footprint."""
    latest: dict[tuple[datetime, str, tuple[float, ...]], Scene] = {}
    for scene in scenes:
        rounded = tuple(round(number, FOOTPRINT_DIGITS) for number in bounds(scene.footprint))
        key = (scene.time, scene.sensor, rounded)
        latest[key] = max(latest.get(key, scene), scene, key=lambda scene: scene.processing)
    return list(latest.values())
