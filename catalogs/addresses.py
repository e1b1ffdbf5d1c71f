"""Checks the addresses that catalogs name, and turns those of assets into paths for GDAL."""

import os
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from utils import EventError, hide_secrets

WEB = ("http", "https")


def is_web(address: str) -> bool:
    """Return whether an address is one of HTTP."""
    return urlsplit(address).scheme.lower() in WEB


def resolve(base: str, href: str) -> str:
    """Return the address or absolute path that a file at `base` names by `href`.

    Only http and https, and files if `base` is a file, are allowed: a catalog must not make this program or GDAL open
    another scheme, a virtual file system of GDAL, or a local file from the network. Raises EventError.
    """
    shown = hide_secrets(href).partition("?")[0] if is_web(base) else hide_secrets(href)
    if not href.isprintable():
        raise EventError(f"{shown!r}: is no address, it has control characters in it")
    try:
        scheme = urlsplit(urljoin(base, href) if is_web(base) else href).scheme.lower()
    except ValueError:
        raise EventError(f"{shown}: is no address") from None
    if is_web(base) or scheme in WEB:
        address = urljoin(base, href).replace(" ", "%20")
        if not is_web(address) or not urlsplit(address).hostname:
            raise EventError(f"{shown}: only http and https addresses are read from a catalog on the network")
        return address
    if scheme == "file":
        href, scheme = unquote(urlsplit(href).path), ""
    if scheme or "<" in href:
        raise EventError(f"{shown}: only GeoTIFFs in local files and at http and https addresses are read")
    path = os.path.normpath(Path(base).parent / href)
    if path.startswith("/vsi"):
        raise EventError(f"{shown}: only GeoTIFFs in local files and at http and https addresses are read")
    return path


def gdal_path(address: str, signed_for: str | None) -> str:
    """Return GDAL's name for a resolved address.

    `signed_for`: collection of the Planetary Computer for which GDAL has to sign the address; None: as it is.
    """
    if not is_web(address):
        return address
    if signed_for is None:
        return f"/vsicurl/{address}"
    return f"/vsicurl?pc_url_signing=yes&pc_collection={quote(signed_for)}&url={quote(address, safe='')}"
