"""Records the program's version, the time, and the files that a map was made from."""

import functools
import hashlib
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

import config

END_BYTES = 64 << 10  # bytes hashed at the beginning and at the end of a file: a TIFF's directories lie at either


def file_identities(paths: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """Return what identifies the content of files, by name: size in bytes and SHA-256 of both ends."""
    return {path.name: {"bytes": path.stat().st_size, "sha256_of_ends": _hash_of_ends(path)} for path in paths}


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
