"""Says how a map came to be: the program's version, the time, and the files that it was made from."""

import functools
import hashlib
import importlib
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import config

END_BYTES = 64 << 10  # of a file that are hashed at its beginning and at its end: a TIFF's directories lie at either


class SamIdentity(NamedTuple):
    """Which SAM makes a map, and how: for the record in the map."""

    provenance: dict[str, str]  # what has to be the same for a map to be the same
    checkpoint: str  # the weights file's name


def file_identities(paths: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """What tells whether files are still the same: by name, their size in bytes and the SHA-256 of both their ends."""
    return {path.name: {"bytes": path.stat().st_size, "sha256_of_ends": _hash_of_ends(path)} for path in paths}


def _hash_of_ends(path: Path) -> str:
    with open(path, "rb") as file:
        hashed = hashlib.sha256(file.read(END_BYTES))
        file.seek(max(path.stat().st_size - END_BYTES, 0))
        hashed.update(file.read(END_BYTES))
    return hashed.hexdigest()


def program_tags() -> dict[str, str]:
    """Tags with the version and commit of this program, and the time in UTC."""
    return {
        "ANOMALYCD_VERSION": config.VERSION,
        "ANOMALYCD_COMMIT": _commit(),
        "ANOMALYCD_TIME": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def environment() -> dict[str, Any]:
    """What has to be the same in all processes for the windows that they compute to fit together."""
    versions = {name: importlib.import_module(name).__version__ for name in ("numpy", "torch", "cv2", "osgeo.gdal")}
    program = hashlib.sha256()
    for path in sorted(config.PROJECT_ROOT.glob("*.py")):
        program.update(path.read_bytes())
    settings = {
        name: value
        for name, value in vars(config).items()
        if name.isupper() and isinstance(value, (str, int, float, dict)) and name != "OVERRIDDEN"
    }
    return versions | {"AnomalyCD": program.hexdigest()} | settings


@functools.cache
def _commit() -> str:
    """The commit of the program's checkout, marked where files differ from it; `unknown` outside of a checkout."""
    if not (config.PROJECT_ROOT / ".git").exists():  # git would look further up, and find another project
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
