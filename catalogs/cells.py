"""Lists what a static catalog has: its collections, and the places of a collection by number of dates."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from typing import Any, NamedTuple

from catalogs.documents import CatalogIO, Found, Item, catalog_address, children, mapping, parse_time, read_documents
from catalogs.geojson import bounds
from catalogs.static import walk
from catalogs.table import warn_left_out
from utils import LOG, UsageError, hide_secrets


def list_catalog(stac: str, collection: str | None, event_date: date | None) -> int:
    """Print the collections of a static catalog, or the cells of one of them; returns the exit code.

    A cell is a place of the catalog's own grid: the items whose identifiers differ in the last part only, as Maxar's
    ZONE/QUADKEY/CATALOGID. Raises EventError if the catalog or the collection cannot be read.
    """
    address = catalog_address(stac)
    io = CatalogIO(address)
    if collection is None:
        _print_collections(io, address)
    else:
        found = walk(io, io.document(address), collection)
        if not found.items:
            raise UsageError(f"{hide_secrets(address)}: no items in a collection {collection!r}; list them with --list")
        warn_left_out(found.unusable)
        _print_cells(found.items, event_date)
    return 0


def _print_collections(io: CatalogIO, address: str) -> None:
    found = Found()
    links = [link for kind, link in children(io.document(address), found.unusable) if kind == "child"]
    for document in read_documents(io, links, found):
        if document is None:
            continue
        content = document.content
        spans = mapping(mapping(content, "extent"), "temporal").get("interval")
        first = spans[0] if isinstance(spans, list) and spans and isinstance(spans[0], list) else [None, None]
        period = " to ".join(str(text)[:10] if text else "..." for text in first)
        print(f"{content.get('id')}  {period}  {content.get('title') or ''}".rstrip())
    warn_left_out(found.unusable)


class Cell(NamedTuple):
    """A place of a catalog's grid."""

    name: str
    days: set[date]
    box: tuple[float, float, float, float]  # west, south, east, north


def _print_cells(items: Iterable[Item], event_date: date | None) -> None:
    contents: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        name = str(item.content.get("id"))
        contents[name.rpartition("/")[0] or name].append(item.content)
    cells = [cell for name, members in contents.items() if (cell := _cell(name, members)) is not None]
    cells.sort(key=lambda cell: (-len(cell.days), cell.name))
    width = max([len(cell.name) for cell in cells], default=0)
    print(f"{'cell':{width}}  dates{'  before  after' if event_date else ''}  first       last        --bbox")
    for name, days, box in cells:
        before = sum(day < event_date for day in days) if event_date else 0
        split = f"  {before:6}  {len(days) - before:5}" if event_date else ""
        corners = " ".join(f"{number:.5f}" for number in box)
        print(f"{name:{width}}  {len(days):5}{split}  {min(days)}  {max(days)}  {corners}")
    counts = [len(cell.days) for cell in cells]
    shares = [f"{_share(count == 1 for count in counts):.0%} have one date"]
    shares += [f"{_share(count >= least for count in counts):.0%} have {least} or more" for least in (3, 5)]
    print(f"{len(cells)} cells: {', '.join(shares)}")


def _share(which: Iterable[bool]) -> float:
    listed = list(which)
    return sum(listed) / max(len(listed), 1)


def _cell(name: str, contents: Iterable[dict[str, Any]]) -> Cell | None:
    """Return the cell of these items; None if none of them has a valid date and geometry."""
    days, boxes = set(), []
    for content in contents:
        try:
            day = parse_time(str(mapping(content, "properties").get("datetime"))).date()
            boxes.append(bounds(content["geometry"]))
            days.add(day)
        except (KeyError, TypeError, ValueError):
            LOG.warning("left out: %s: has no valid date or geometry", content.get("id"))
    if not boxes:
        return None
    west, south, east, north = zip(*boxes, strict=True)
    return Cell(name, days, (min(west), min(south), max(east), max(north)))
