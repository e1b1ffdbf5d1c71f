"""Reads the documents of STAC catalogs, from addresses and files, and what their fields say."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urldefrag

import pystac
from pystac.utils import str_to_datetime
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

import config
from catalogs.addresses import is_web, resolve
from catalogs.retries import BUSY, NetworkError, asked_pause, network_reason, with_retries
from cli.progress import progress_bar
from utils import EventError, UsageError, first_line, hide_secrets

READERS = 8  # documents of a static catalog that are read at once
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

        return with_retries(attempt)

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


def mapping(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a field of a STAC document that must be an object; empty if it is none."""
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def links_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the links of a STAC document."""
    links = content.get("links")
    return [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []


def licence_of(content: dict[str, Any]) -> str | None:
    """Return the licence that a collection or item names, with the address of its text."""
    name = content.get("license") or mapping(content, "properties").get("license")
    texts = [link.get("href") for link in links_of(content) if link.get("rel") == "license"]
    return " ".join(str(part) for part in (name, *texts[:1]) if part) or None


def read_documents(io: CatalogIO, addresses: Sequence[str], found: Found) -> Iterator[Document | None]:
    """Yield the documents at these addresses, in order, with a bar; None for one that cannot be read.

    The reasons are added to `found.unusable`.
    """
    with progress_bar("reading items", "item", len(addresses)) as bar, readers() as threads:
        for document in threads.map(reader(io, found), addresses):
            bar.update()
            yield document


def readers() -> ThreadPoolExecutor:
    """Return threads for reading documents."""
    return ThreadPoolExecutor(READERS, "catalog")


def reader(io: CatalogIO, found: Found) -> Callable[[str], Document | None]:
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
    for link in links_of(document.content):
        if link.get("rel") in ("child", "item"):
            try:
                yield link["rel"], urldefrag(resolve(document.address, str(link.get("href")))).url
            except EventError as error:
                refused.append(str(error))


def parse_time(text: str) -> datetime:
    """Return a time of a catalog in UTC. Raises ValueError if it is not one."""
    try:
        time = str_to_datetime(text)
        return time.astimezone(timezone.utc) if time.tzinfo else time.replace(tzinfo=timezone.utc)
    except OverflowError:  # in the first or the last hours of Python's years
        raise ValueError(text) from None
