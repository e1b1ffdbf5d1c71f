"""What is asked of a catalog: the place, the dates, and what counts as a usable image."""

import json
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from utils import UsageError


class Box(NamedTuple):
    """A rectangle in WGS 84, in degrees; it does not cross the antimeridian."""

    west: float
    south: float
    east: float
    north: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Box":
        """Check a box. Raises UsageError if it is empty, leaves the Earth, or crosses the antimeridian."""
        box = cls(*numbers)
        if not (-90 <= box.south < box.north <= 90 and all(-180 <= x <= 180 for x in (box.west, box.east))):
            raise UsageError(f"--bbox {box}: needs west, south, east, north in degrees, south below north")
        if box.west >= box.east:
            raise UsageError(
                f"--bbox {box}: west is not below east; a box over the antimeridian is not supported, "
                "take one event on each side of it"
            )
        return box

    def __str__(self) -> str:
        """Text for messages, as on the command line."""
        return " ".join(f"{number:g}" for number in self)

    def intersects(self, other: Sequence[float]) -> bool:
        """Return whether a box of a catalog shares points with this one.

        `other`: west, south, east, north; six numbers include heights. West above east: it crosses the antimeridian.
        """
        west, south, east, north = other if len(other) == 4 else (other[0], other[1], other[3], other[4])
        if south > self.north or north < self.south:
            return False
        if west > east:
            return self.east >= west or self.west <= east
        return west <= self.east and east >= self.west


def box_of_geojson(path: Path) -> Box:
    """Return the bounding box of a GeoJSON file. Raises UsageError if it has no coordinates."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: is not GeoJSON") from None
    try:
        return Box.of(bounds(content))
    except ValueError:
        raise UsageError(f"{path}: has no coordinates; it must be GeoJSON in longitude and latitude") from None
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix('--bbox ')}") from None


def bounds(geojson: Any) -> tuple[float, float, float, float]:
    """Return the least and greatest coordinates of a GeoJSON object. Raises ValueError if it has none."""
    x, y = zip(*_points(geojson), strict=True)
    return min(x), min(y), max(x), max(y)


def _points(value: Any) -> Iterator[tuple[float, float]]:
    """Yield the positions in a GeoJSON object, at any depth."""
    if isinstance(value, dict):
        for name in ("features", "geometry", "geometries", "coordinates"):
            yield from _points(value.get(name))
    elif isinstance(value, list) and len(value) > 1 and all(isinstance(one, int | float) for one in value):
        yield float(value[0]), float(value[1])
    elif isinstance(value, list):
        for one in value:
            yield from _points(one)


class Query(NamedTuple):
    """What is asked of a catalog."""

    stac: str  # address or path of the catalog
    collection: str | None
    asset: str
    signed: bool  # whether addresses are signed as the Planetary Computer asks for
    box: Box
    event_date: date
    before: timedelta
    after: timedelta
    dates: int  # wanted historical images
    max_cloud: float  # percent of an image's pixels in the box
    images: tuple[str, ...] = ()  # identifiers of the items to use; empty: they are chosen
    bands: tuple[int, ...] | None = None  # numbers of the red, green and blue band, from 1

    @property
    def first(self) -> date:
        """The earliest date that is searched."""
        return self.event_date - self.before

    @property
    def last(self) -> date:
        """The latest date that is searched."""
        return self.event_date + self.after
