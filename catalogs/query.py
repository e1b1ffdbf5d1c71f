"""What is asked of a catalog: the place, the dates, and what counts as a usable image."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

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
