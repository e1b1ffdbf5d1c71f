"""Tells what has to be the same in all processes of a cluster, so that their windows fit together."""

import hashlib
import importlib
from typing import Any

import config

PROGRAM = ("*.py", "cli/*.py", "cluster/*.py", "evaluation/*.py", "pipeline/*.py", "rasters/*.py", "sam/*.py")


def environment() -> dict[str, Any]:
    """What has to be the same in all processes for the windows that they compute to fit together."""
    versions = {name: importlib.import_module(name).__version__ for name in ("numpy", "torch", "cv2", "osgeo.gdal")}
    program = hashlib.sha256()
    for path in sorted(path for pattern in PROGRAM for path in config.PROJECT_ROOT.glob(pattern)):
        program.update(path.read_bytes())
    settings = {
        name: value
        for name, value in vars(config).items()
        if name.isupper() and isinstance(value, (str, int, float, dict)) and name != "OVERRIDDEN"
    }
    return versions | {"AnomalyCD": program.hexdigest()} | settings
