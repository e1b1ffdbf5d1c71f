"""Finds the items of a place: in a STAC API, a static catalog, or the saved result of a search."""

from typing import Any

from catalogs.api import is_api, search_api
from catalogs.documents import CatalogIO, Found, Item, catalog_address
from catalogs.query import Query
from catalogs.static import walk
from utils import EventError, hide_secrets


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
    if kind == "Catalog" and is_api(content):
        return search_api(io, address, query)
    if kind in ("Catalog", "Collection"):
        return walk(io, first, query.collection, query)
    raise EventError(f"{hide_secrets(address)}: is no STAC catalog, its type is {kind!r}")


def _of_feature_collection(content: dict[str, Any], address: str) -> Found:
    """Return the items of a search result that was saved as a file."""
    items = [feature for feature in content.get("features") or [] if isinstance(feature, dict)]
    return Found([Item(item, address, item.get("collection"), None) for item in items])
