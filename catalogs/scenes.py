"""Turns a catalog's items into scenes, and scenes of one date and sensor into acquisitions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from catalogs.addresses import resolve
from catalogs.query import Query, bounds
from catalogs.stac import Found, Item, mapping, parse_time
from utils import EventError, UsageError, list_names

# Assets with the clouds of an item; the first one that exists is used. Sentinel-2's scene classification by class:
# 3 cloud shadow, 8 and 9 cloud, 10 cirrus.
CLASSES = ("scl", "SCL")
CLOUD_CLASSES = (3, 8, 9, 10)
CLOUDS = ("cloud",)
CLOUD_PROBABILITY = 50  # percent; from here on a pixel of a probability is cloud
# Properties with the cloud cover of a whole item in percent: Maxar's items have the first one.
CLOUD_COVER = ("tile:clouds_percent", "eo:cloud_cover")


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
    scenes: dict[str, Scene] = {}
    unusable = list(found.unusable)
    lacking: list[Item] = []
    for item in found.items:
        name = str(item.content.get("id"))
        if query.images and name not in query.images:
            continue
        try:
            if _matches(item.content, query):
                if query.asset in mapping(item.content, "assets"):
                    scenes.setdefault(name, _scene(name, item, query))
                else:
                    lacking.append(item)
        except EventError as error:
            unusable.append(f"{name}: {error}")
    _check_assets(scenes, lacking, query)
    unusable += [f"{item.content.get('id')}: no asset {query.asset!r}" for item in lacking]
    unknown = [name for name in query.images if name not in scenes]
    if unknown:
        missing = f"{list_names(unknown)}: not found at this place from {query.first} to {query.last}"
        reason = next((line for line in unusable if line.startswith(f"{unknown[0]}:")), missing)
        raise UsageError(f"--images: {reason}")
    return list(scenes.values()), unusable


def _check_assets(scenes: dict[str, Scene], lacking: Sequence[Item], query: Query) -> None:
    if lacking and not scenes:
        there = sorted({name for item in lacking for name in mapping(item.content, "assets")})
        raise UsageError(f"no item has an asset {query.asset!r}; --asset names one of {', '.join(there) or 'none'}")


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
    covers = [properties[key] for key in CLOUD_COVER if isinstance(properties.get(key), int | float)]
    return Scene(
        name,
        _time(item.content),
        str(sensor),
        _href(item, assets[query.asset]),
        item.content["geometry"],
        _cloud_asset(item, assets),
        float(covers[0]) if covers else None,
        item.collection or item.content.get("collection"),
        item.licence,
        item.address,
    )


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
    """Return the acquisitions of scenes, oldest first."""
    groups: dict[tuple[date, str], list[Scene]] = defaultdict(list)
    for scene in scenes:
        groups[scene.time.date(), scene.sensor].append(scene)
    return [
        Acquisition(day, sensor, tuple(sorted(members, key=lambda scene: scene.item)))
        for (day, sensor), members in sorted(groups.items())
    ]
