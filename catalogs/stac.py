"""Finds items: searches STAC APIs, and walks static catalogs as far as their declared extents allow."""

import json
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urldefrag

import pystac
from pystac.utils import str_to_datetime
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from tqdm import tqdm

import config
from catalogs.addresses import is_web, resolve
from catalogs.query import Query
from catalogs.retries import BUSY, NetworkError, asked_pause, network_reason, patiently
from cli.progress import progress_bar
from utils import EventError, UsageError, first_line, hide_secrets, list_names

READERS = 8  # documents of a static catalog that are read at once
MAX_DOCUMENTS = 100_000  # of a static catalog: a server could invent ever more of them
PAGE = 100  # items per page of an API's answer
ROOTS = ("catalog.json", "collection.json")  # of a folder


@dataclass(frozen=True)
class Item:
    """An item as the catalog has it, with what the catalog says about its collection."""

    content: dict[str, Any]
    address: str  # of the item, or of the document that contains it; hrefs are relative to it
    collection: str | None
    licence: str | None


@dataclass
class Found:
    """The items of a search, and what could not be used."""

    items: list[Item] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)  # one line for each document that could not be read


class Document(NamedTuple):
    """A JSON object of a catalog, and where it lies."""

    content: dict[str, Any]
    address: str  # after redirects: links are relative to it


class CatalogIO(StacApiIO):
    """Reads documents of a catalog; repeats requests that a network or a busy server made fail."""

    def __init__(self, catalog: str) -> None:
        """Prepare a session, without connecting. `catalog`: address or path of the first document."""
        self._on_network = is_web(catalog)
        self._thread = threading.local()  # `answer`: the latest one, after redirects
        super().__init__(timeout=config.CATALOG_TIMEOUT, max_retries=None)  # `request` repeats
        self.session.hooks["response"].append(lambda answer, **_: setattr(self._thread, "answer", answer))

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """Return the text at an address. Raises EventError if a catalog on the network names a local file."""
        href = source.href if isinstance(source, pystac.Link) else str(source)
        if self._on_network and not is_web(href):
            raise EventError(
                f"{hide_secrets(href)}: only http and https addresses are read from a catalog on the network"
            )
        return super().read_text(source, *args, **kwargs)

    def request(self, href: str, *args: Any, **kwargs: Any) -> str:
        """Return the text at an address.

        Raises RefusedError if the server refuses it, NetworkError if the server is busy or cannot be reached.
        """
        shown = hide_secrets(href)

        def attempt() -> str:
            try:
                return super(CatalogIO, self).request(href, *args, **kwargs)
            except APIError as error:
                code = getattr(error, "status_code", None)
                if code is None:  # no answer
                    reason = network_reason(error)
                    raise NetworkError(
                        f"{shown}: cannot be reached ({reason}); check the address and the network"
                    ) from None
                if code in BUSY:
                    pause = asked_pause(self._thread.answer.headers)
                    raise NetworkError(f"{shown}: the server is busy (HTTP {code}); try again later", pause) from None
                said = hide_secrets(first_line(error))[:200]
                raise RefusedError(f"{shown}: the server refuses it (HTTP {code}: {said})") from None

        return patiently(attempt)

    def document(self, address: str) -> Document:
        """Return the JSON object at an address. Raises EventError if there is none."""
        try:
            content = json.loads(self.read_text(address).removeprefix("\ufeff"))
        except OSError as error:
            raise EventError(f"{address}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError):
            raise EventError(f"{hide_secrets(address)}: is not JSON") from None
        if not isinstance(content, dict):
            raise EventError(f"{hide_secrets(address)}: is not a STAC document")
        return Document(content, self._thread.answer.url if is_web(address) else address)


class RefusedError(EventError):
    """A server refuses a document, or does not have it."""


def catalog_address(stac: str) -> str:
    """Return the address or absolute path of a catalog's first document. Raises UsageError for other schemes."""
    if is_web(stac):
        return stac
    if "://" in stac:
        raise UsageError(f"--stac {hide_secrets(stac)}: only http and https addresses, files and folders are read")
    path = Path(stac).expanduser().absolute()
    if path.is_dir():
        found = [path / name for name in ROOTS if (path / name).exists()]
        if not found:
            raise UsageError(f"--stac {path}: the folder has no {' or '.join(ROOTS)}")
        path = found[0]
    if not path.exists():
        raise UsageError(f"--stac {path}: does not exist")
    return str(path)


def search(query: Query) -> Found:
    """Find the items of a place between the query's first and last date.

    Raises UsageError if the catalog is an API and the query names no collection of it, EventError if the catalog
    cannot be read, NetworkError if its server cannot be reached.
    """
    address = catalog_address(query.stac)
    io = CatalogIO(address)
    first = io.document(address)
    content, address = first
    kind = content.get("type")
    if kind == "FeatureCollection":
        return _of_feature_collection(content, address)
    if kind == "Catalog" and _is_api(content):
        return _search_api(io, address, query)
    if kind in ("Catalog", "Collection"):
        return walk(io, first, query.collection, query)
    raise EventError(f"{hide_secrets(address)}: is no STAC catalog, its type is {kind!r}")


def _is_api(content: dict[str, Any]) -> bool:
    return any(link.get("rel") == "search" for link in _links(content)) and "conformsTo" in content


def mapping(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a field of a STAC document that must be an object; empty if it is none."""
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _links(content: dict[str, Any]) -> list[dict[str, Any]]:
    links = content.get("links")
    return [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []


# --- APIs ------------------------------------------------------------------------------------------------------------
def _search_api(io: CatalogIO, address: str, query: Query) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pystac-client warns of APIs that do not list all of their abilities
        try:
            client = Client.open(address, stac_io=io)
            licence = _licence_of_api(client, query.collection, address)
            found = client.search(
                collections=query.collection,
                bbox=list(query.box),
                datetime=f"{query.first}T00:00:00Z/{query.last}T23:59:59Z",
                limit=PAGE,
                max_items=config.CATALOG_MAX_ITEMS,
            )
            dicts = list(tqdm(found.items_as_dicts(), "searching", unit="item"))
        except (APIError, pystac.STACError, KeyError, OSError, TypeError, ValueError, NotImplementedError) as error:
            reason = hide_secrets(first_line(error))[:200]
            raise EventError(f"{hide_secrets(address)}: does not answer as a STAC API ({reason})") from None
    if len(dicts) == config.CATALOG_MAX_ITEMS:
        shown = hide_secrets(address)
        raise UsageError(f"{shown}: {len(dicts)} items or more; take a smaller box, or shorter --before and --after")
    return Found([Item(one, _self_address(one, address), query.collection, licence) for one in dicts])


def _licence_of_api(client: Client, collection: str | None, address: str) -> str | None:
    """Return the licence of a collection. Raises UsageError, with the API's collections, if it is not one of them.

    Asks for the collection itself, as the API may list its collections in pages or not all of them.
    """
    if collection is not None:
        try:
            found = client.get_collection(quote(collection, safe=""))
        except RefusedError:
            found = None
        if found is not None:
            return licence_of(found.to_dict(transform_hrefs=False))
    collections = {one.id: one for one in client.get_collections()}
    if collection not in collections:
        problem = "--collection is missing" if collection is None else f"has no collection {collection!r}"
        raise UsageError(f"{hide_secrets(address)}: {problem}; it has {list_names(sorted(collections))}")
    return licence_of(collections[collection].to_dict(transform_hrefs=False))


def licence_of(content: dict[str, Any]) -> str | None:
    """Return the licence that a collection or item names, with the address of its text."""
    name = content.get("license") or mapping(content, "properties").get("license")
    texts = [link.get("href") for link in _links(content) if link.get("rel") == "license"]
    return " ".join(str(part) for part in (name, *texts[:1]) if part) or None


def _self_address(item: dict[str, Any], otherwise: str) -> str:
    """Return an item's own address, on the network as the catalog is."""
    href = next((link.get("href") for link in _links(item) if link.get("rel") == "self"), None)
    return href if isinstance(href, str) and is_web(href) and is_web(otherwise) else otherwise


def _of_feature_collection(content: dict[str, Any], address: str) -> Found:
    """Return the items of a search result that was saved as a file."""
    features = [one for one in content.get("features") or [] if isinstance(one, dict)]
    return Found([Item(one, address, one.get("collection"), None) for one in features])


# --- Static catalogs -------------------------------------------------------------------------------------------------
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
    with progress_bar("walking the catalog", "document") as bar, _readers() as readers:
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
            documents = readers.map(_reader(io, found), [link.address for link in waiting])
            batch = list(zip(waiting, documents, strict=True))
    return _read_items(io, [link for link in items if link.is_wanted], found)


def _inside(link: _Link, content: dict[str, Any], wanted: str | None) -> _Link:
    """Return what holds for the documents below one that was read, but for their addresses."""
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


def read_documents(io: CatalogIO, addresses: Sequence[str], found: Found) -> Iterator[Document | None]:
    """Yield the documents at these addresses, in order, with a bar; None for one that cannot be read.

    The reasons are added to `found.unusable`.
    """
    with progress_bar("reading items", "item", len(addresses)) as bar, _readers() as readers:
        for document in readers.map(_reader(io, found), addresses):
            bar.update()
            yield document


def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, "catalog")


def _reader(io: CatalogIO, found: Found) -> Callable[[str], Document | None]:
    """Return a function that reads a document, and records it as unusable if it cannot be read."""

    def read(address: str) -> Document | None:
        try:
            return io.document(address)
        except EventError as error:
            found.unusable.append(str(error))
            return None

    return read


def children(document: Document, refused: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the kind (`child` or `item`) and the address of each link to a document below this one.

    Addresses that are not read are added to `refused`, one line each.
    """
    for link in _links(document.content):
        if link.get("rel") in ("child", "item"):
            try:
                yield link["rel"], urldefrag(resolve(document.address, str(link.get("href")))).url
            except EventError as error:
                refused.append(str(error))


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


def parse_time(text: str) -> datetime:
    """Return a time of a catalog in UTC. Raises ValueError if it is not one."""
    try:
        time = str_to_datetime(text)
        return time.astimezone(timezone.utc) if time.tzinfo else time.replace(tzinfo=timezone.utc)
    except OverflowError:  # in the first or the last hours of Python's years
        raise ValueError(text) from None
