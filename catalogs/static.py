"""Walks static STAC catalogs as far as their declared extents allow."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from catalogs.documents import (
    CatalogIO,
    Document,
    Found,
    Item,
    children,
    licence_of,
    parse_time,
    read_documents,
    reader,
    readers,
)
from catalogs.query import Query
from cli.progress import progress_bar
from utils import EventError, hide_secrets

MAX_DOCUMENTS = 100_000  # a server could invent ever more of them


class _Link(NamedTuple):
    """A document that is still to be read."""

    address: str
    collection: str | None = None  # the collection that contains it
    licence: str | None = None
    is_wanted: bool = False  # whether it lies in the wanted collection


def walk(io: CatalogIO, first: Document, collection: str | None, query: Query | None = None) -> Found:
    """Walk a static catalog, each document once, and read the items in documents whose extents do not exclude them.

    `collection`: identifier of the only collection to read; None: all. `query`: None to read all items. Documents that
    cannot be read are recorded in the result.
    """
    found = Found()
    batch: list[tuple[_Link, Document | None]]
    batch = [(_Link(first.address, is_wanted=collection is None), first)]
    seen = {first.address}
    items: list[_Link] = []
    with progress_bar("walking the catalog", "document") as bar, readers() as threads:
        while batch:
            waiting: list[_Link] = []
            for link, document in batch:
                bar.update()
                if document is None or not _may_contain(document.content, query):
                    continue
                inside = _inside(link, document.content, collection)
                for kind, address in children(document, found.unusable):
                    if address not in seen:
                        seen.add(address)
                        (waiting if kind == "child" else items).append(inside._replace(address=address))
            if len(seen) > MAX_DOCUMENTS:
                raise EventError(f"{hide_secrets(first.address)}: more than {MAX_DOCUMENTS} documents at this place")
            if collection is not None and any(link.is_wanted for link in waiting):
                # The collection was found: nothing else has to be walked.
                waiting = [link for link in waiting if link.is_wanted]
            documents = threads.map(reader(io, found), [link.address for link in waiting])
            batch = list(zip(waiting, documents, strict=True))
    return _read_items(io, [link for link in items if link.is_wanted], found)


def _inside(link: _Link, content: dict[str, Any], wanted: str | None) -> _Link:
    """Return the link to the documents below one that was read; the caller sets their addresses."""
    is_collection = content.get("type") == "Collection"
    name = str(content.get("id"))
    return _Link(
        link.address,
        name if is_collection else link.collection,
        licence_of(content) or link.licence,
        link.is_wanted or name == wanted,
    )


def _read_items(io: CatalogIO, links: Sequence[_Link], found: Found) -> Found:
    documents = read_documents(io, [link.address for link in links], found)
    for link, document in zip(links, documents, strict=True):
        if document is not None:
            licence = licence_of(document.content) or link.licence
            found.items.append(Item(document.content, document.address, link.collection, licence))
    return found


def _may_contain(content: dict[str, Any], query: Query | None) -> bool:
    """Return whether the extents that a document declares, if any, allow items of the query."""
    extent = content.get("extent")
    if query is None or not isinstance(extent, dict):
        return True
    try:
        boxes = extent.get("spatial", {}).get("bbox") or []
        spans = extent.get("temporal", {}).get("interval") or []
        return (not boxes or any(query.box.intersects(box) for box in boxes)) and (
            not spans or any(_overlaps(span, query) for span in spans)
        )
    except (AttributeError, IndexError, TypeError, ValueError):
        return True  # an extent that cannot be read excludes nothing


def _overlaps(span: Sequence[str | None], query: Query) -> bool:
    first, last = (None if text is None else parse_time(text).date() for text in span)
    return (first is None or first <= query.last) and (last is None or last >= query.first)
