"""Records the program's version, the time, and the files that a map was made from."""

import functools
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import config

END_BYTES = 64 << 10  # bytes hashed at the beginning and at the end of a file: a TIFF's directories lie at either
# Files beside an image that GDAL reads with it: mask, metadata, overviews; georeferencing.
SIDE_SUFFIXES = (".msk", ".aux.xml", ".ovr")  # after the whole name
WORLD_SUFFIXES = (".tfw", ".tifw", ".tiffw", ".wld", ".tab")  # instead of the image's own suffix
CONTAINERS = ("PAMDataset", "PAMRasterBand", "Metadata")  # elements of an .aux.xml that say nothing by themselves
STATISTICS = "STATISTICS_"  # beginning of metadata items that do not affect how an image is read


def file_identities(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return what identifies the content of files, by name: size in bytes and SHA-256 of both ends.

    A file with side files also has `side_files`, the SHA-256 of each by name. Statistics and histograms, which a GIS
    writes when it shows an image, do not count.
    """
    identities: dict[str, dict[str, Any]] = {}
    for path in paths:
        identities[path.name] = {"bytes": path.stat().st_size, "sha256_of_ends": _hash_of_ends(path)}
        hashes = {side.name: _hash_of_side_file(side) for side in _side_files(path)}
        if found := {name: digest for name, digest in hashes.items() if digest}:
            identities[path.name]["side_files"] = found  # only then, so that older maps stay current
    return identities


def _side_files(path: Path) -> list[Path]:
    names = {path.name.lower() + suffix for suffix in SIDE_SUFFIXES}
    names |= {path.stem.lower() + suffix for suffix in WORLD_SUFFIXES}
    return sorted(file for file in path.parent.iterdir() if file.name.lower() in names)


def _hash_of_side_file(path: Path) -> str | None:
    """Return the SHA-256 of a side file's content; None if it holds nothing but statistics."""
    if path.suffix.lower() != ".xml":
        return _hash_of_ends(path)
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return _hash_of_ends(path)
    content = _content(root)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest() if content else None


def _content(element: ElementTree.Element) -> list[Any]:
    """Return an element of GDAL's .aux.xml without statistics as nested lists; empty if nothing is left."""
    if element.tag == "Histograms" or element.get("key", "").startswith(STATISTICS):
        return []
    text, children = (element.text or "").strip(), [content for content in map(_content, element) if content]
    if element.tag in CONTAINERS and not text and not children:
        return []
    return [element.tag, sorted(element.items()), text, children]


def _hash_of_ends(path: Path) -> str:
    with open(path, "rb") as file:
        hashed = hashlib.sha256(file.read(END_BYTES))
        file.seek(max(path.stat().st_size - END_BYTES, 0))
        hashed.update(file.read(END_BYTES))
    return hashed.hexdigest()


def program_tags() -> dict[str, str]:
    """Return tags with the version and commit of this program, and the time in UTC."""
    return {
        "ANOMALYCD_VERSION": config.VERSION,
        "ANOMALYCD_COMMIT": _commit(),
        "ANOMALYCD_TIME": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Return the versions of this program, of Python and of the installed packages that results may depend on."""
    found = {"AnomalyCD": f"{config.VERSION} ({_commit()})", "Python": platform.python_version()}
    for name in ("numpy", "torch", "torchvision", "segment-anything", "opencv-python", "scikit-image", "GDAL"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def _commit() -> str:
    """Return the checkout's commit, marked `-dirty` if files differ from it; `unknown` outside of a checkout."""
    if not (config.PROJECT_ROOT / ".git").exists():  # git would search the parent folders, and find another project
        return "unknown"
    try:
        described = subprocess.run(
            ["git", "-C", config.PROJECT_ROOT, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
