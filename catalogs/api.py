"""Searches STAC APIs."""

import warnings
from typing import Any
from urllib.parse import quote

import pystac
from pystac_client import Client
from pystac_client.exceptions import APIError
from tqdm import tqdm

import config
from catalogs.addresses import is_web
from catalogs.documents import CatalogIO, Found, Item, RefusedError, licence_of, links_of
from catalogs.query import Query
from utils import EventError, UsageError, first_line, hide_secrets, list_names

PAGE = 100  # items per page of an answer


def is_api(content: dict[str, Any]) -> bool:
    """Return whether a catalog's first document is that of an API."""
    return any(link.get("rel") == "search" for link in links_of(content)) and "conformsTo" in content


def search_api(io: CatalogIO, address: str, query: Query) -> Found:
    """Find the items of a query. `address`: of the API's first document.

    Raises UsageError if the query names no collection of the API, or finds too many items.
    """
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
    return Found([Item(item, _self_address(item, address), query.collection, licence) for item in dicts])


def _licence_of_api(client: Client, collection: str | None, address: str) -> str | None:
    """Return the licence of a collection. Raises UsageError, with the API's collections, if it is not one of them.

    Asks for the collection itself, as the API may list its collections in pages or not all of them.
    """
    if collection is not None:
        try:
            found = client.get_collection(quote(collection, safe=""))
        except RefusedError:
            found = None
        if found is not None and found.id == collection:  # without addresses, pystac-client may return another one
            return licence_of(found.to_dict(transform_hrefs=False))
    collections = {listed.id: listed for listed in client.get_collections()}
    if collection not in collections:
        problem = "--collection is missing" if collection is None else f"has no collection {collection!r}"
        raise UsageError(f"{hide_secrets(address)}: {problem}; it has {list_names(sorted(collections))}")
    return licence_of(collections[collection].to_dict(transform_hrefs=False))


def _self_address(item: dict[str, Any], otherwise: str) -> str:
    """Return an item's own address, on the network as the catalog is."""
    href = next((link.get("href") for link in links_of(item) if link.get("rel") == "self"), None)
    return href if isinstance(href, str) and is_web(href) and is_web(otherwise) else otherwise
