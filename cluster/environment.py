"""Describes the versions and settings that must be equal in all processes of a cluster."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import config

LIBRARIES = ("numpy", "torch", "cv2", "osgeo.gdal")
PACKAGES = ("cli", "cluster", "evaluation", "pipeline", "rasters", "runs", "sam")  # and the modules in the root folder


def environment() -> dict[str, Any]:
    """Return the versions of the libraries, a checksum of the program's source, and all settings."""
    versions = {name: importlib.import_module(name).__version__ for name in LIBRARIES}
    settings = {
        name: value
        for name, value in vars(config).items()
        if name.isupper() and isinstance(value, (str, int, float, dict)) and name != "OVERRIDDEN"
    }
    return versions | {"AnomalyCD": source_checksum(config.PROJECT_ROOT)} | settings


def source_checksum(root: Path) -> str:
    """Return the SHA-256 (hexadecimal) of the paths and contents of all modules that affect the maps."""
    program = hashlib.sha256()
    packages = (path for package in PACKAGES for path in (root / package).rglob("*.py"))
    for path in sorted([*root.glob("*.py"), *packages]):
        program.update(f"{path.relative_to(root)}\n".encode())
        program.update(path.read_bytes())
    return program.hexdigest()
