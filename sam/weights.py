"""Finds the SAM weights: official files are downloaded once and checked, other files are used unchecked."""

import hashlib
import http.client
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import config
from sam.registry import SAM_VARIANTS, PublishedFile
from utils import UsageError, atomic_file

TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20


class Weights(NamedTuple):
    """A checkpoint file with its checksum."""

    path: Path
    sha256: str
    origin: str  # "official" or another description, for the log


class SamIdentity(NamedTuple):
    """The SAM and the settings that compute a map, as the map records them."""

    provenance: dict[str, str]  # a map is recomputed if one of these differs
    checkpoint: str  # the weights file's name


def default_checkpoint(model_type: str) -> Path:
    """Return the default weights file of a model type, used if the user names none."""
    type_alone_overridden = "SAM_MODEL_TYPE" in config.OVERRIDDEN and "SAM_CHECKPOINT" not in config.OVERRIDDEN
    if model_type == config.SAM_MODEL_TYPE and not type_alone_overridden:
        return config.SAM_CHECKPOINT
    return config.WEIGHTS_DIR / SAM_VARIANTS[model_type].weights


def locate_weights(model_type: str, checkpoint: Path | None, fetch: bool = True) -> Weights:
    """Return the weights to use: the file that the user named, or the model type's default one.

    An official file that is missing from its default path is downloaded to it; without `fetch`, it is only described.
    Raises UsageError if any other file is missing, if the file cannot be read, or if the download fails.
    """
    path = checkpoint or default_checkpoint(model_type)
    variant = SAM_VARIANTS[model_type]
    if not path.exists():
        if variant.published is None or path.absolute() != config.WEIGHTS_DIR / variant.weights:
            raise UsageError(
                f"{path}: SAM weights not found; give the path of {model_type} weights to --sam-checkpoint"
            )
        if not fetch:
            return Weights(path, variant.published.sha256, f"{variant.origin}, to be downloaded")
        download(variant.published, path)
    try:
        checksum = sha256(path)
    except OSError as error:
        raise UsageError(f"{path}: SAM weights cannot be read ({error.strerror})") from None
    as_published = variant.published is None or checksum == variant.published.sha256
    return Weights(path, checksum, variant.origin if as_published else "NOT the official file")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def download(published: PublishedFile, path: Path) -> None:
    """Download a file to `path`, where it appears only if its checksum is right. Raises UsageError if it fails."""
    url = published.url
    digest = hashlib.sha256()
    try:
        with atomic_file(path) as part, urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            size = int(response.headers.get("Content-Length") or 0)
            with open(part, "wb") as file, tqdm(total=size, desc=path.name, unit="B", unit_scale=True) as bar:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
            if digest.hexdigest() != published.sha256:
                raise UsageError(f"{url}: the downloaded file has the wrong SHA-256 (truncated or altered); try again")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UsageError(
            f"SAM weights cannot be downloaded ({reason}): download {url} on another machine and save it as {path}; "
            "without weights, `make demo` runs on synthetic scenes"
        ) from None
