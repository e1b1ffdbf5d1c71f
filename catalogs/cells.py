"""Lists what a static catalog has: its collections, and the places of a collection by number of dates."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from typing import Any

from catalogs.query import bounds
from catalogs.stac import CatalogIO, Found, Item, catalog_address, children, mapping, parse_time, read_documents, walk
from utils import LOG, UsageError, hide_secrets

SHARES = (1, 3, 5)  # numbers of dates for which the summary counts cells


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
        found = walk(io, address, io.document(address), None, collection)
        if not found.items:
            raise UsageError(f"{hide_secrets(address)}: no items in a collection {collection!r}; list them with --list")
        _warn_of(found)
        _print_cells(found.items, event_date)
    return 0


def _warn_of(found: Found) -> None:
    for line in found.unusable:
        LOG.warning("left out: %s", hide_secrets(line))


def _print_collections(io: CatalogIO, address: str) -> None:
    found = Found()
    links = [link for kind, link in children(address, io.document(address), found.unusable) if kind == "child"]
    for content in read_documents(io, links, found):
        if content is None:
            continue
        spans = mapping(mapping(content, "extent"), "temporal").get("interval")
        first = spans[0] if isinstance(spans, list) and spans and isinstance(spans[0], list) else [None, None]
        period = " to ".join(str(text)[:10] if text else "..." for text in first)
        print(f"{content.get('id')}  {period}  {content.get('title') or ''}".rstrip())
    _warn_of(found)


def _print_cells(items: Iterable[Item], event_date: date | None) -> None:
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        name = str(item.content.get("id"))
        cells[name.rpartition("/")[0] or name].append(item.content)
    rows = [_row(name, contents, event_date) for name, contents in cells.items()]
    rows = sorted((row for row in rows if row[1]), key=lambda row: (-row[1], row[0]))
    split = "  before  after" if event_date else ""
    width = max([len(row[0]) for row in rows], default=0)
    print(f"{'cell':{width}}  dates{split}  first       last        --bbox")
    for name, count, before, first, last, box in rows:
        split = f"  {before:6}  {count - before:5}" if event_date else ""
        print(f"{name:{width}}  {count:5}{split}  {first}  {last}  {box}")
    shares = ", ".join(
        f"{sum(row[1] == number if number == 1 else row[1] >= number for row in rows) / max(len(rows), 1):.0%} have "
        f"{'one date' if number == 1 else f'{number} or more'}"
        for number in SHARES
    )
    print(f"{len(rows)} cells: {shares}")


def _row(
    name: str, contents: list[dict[str, Any]], event_date: date | None
) -> tuple[str, int, int, date | None, date | None, str]:
    """Return a cell's name, number of dates, how many of them lie before the event, first and last date, and box."""
    days, corners = set(), []
    for content in contents:
        try:
            days.add(parse_time(str(mapping(content, "properties").get("datetime"))).date())
            corners.append(bounds(content["geometry"]))
        except (KeyError, TypeError, ValueError):
            LOG.warning("left out: %s: has no valid date or geometry", content.get("id"))
    if not days or not corners:
        return name, 0, 0, None, None, ""
    west, south, east, north = zip(*corners, strict=True)
    box = " ".join(f"{number:.5f}" for number in (min(west), min(south), max(east), max(north)))
    before = sum(day < event_date for day in days) if event_date else 0
    return name, len(days), before, min(days), max(days), box
