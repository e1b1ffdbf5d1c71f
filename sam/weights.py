"""Finds the SAM weights: official files are downloaded once and checked, others are taken as they are."""

import hashlib
import http.client
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import config
from utils import UsageError, atomic_file

BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20


class OfficialFile(NamedTuple):
    """A file that Meta publishes. The suffix of its name is no checksum of this kind (it is an MD5 prefix)."""

    name: str
    sha256: str


OFFICIAL_FILES = {
    "vit_b": OfficialFile("sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    "vit_l": OfficialFile("sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "vit_h": OfficialFile("sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
}


class Weights(NamedTuple):
    """A checkpoint file, and what its checksum says of it."""

    path: Path
    sha256: str
    origin: str  # "official", or a remark that it is not


class SamIdentity(NamedTuple):
    """Which SAM makes a map, and how: for the record in the map."""

    provenance: dict[str, str]  # what has to be the same for a map to be the same
    checkpoint: str  # the weights file's name


def default_checkpoint(model_type: str) -> Path:
    """Where the weights of a model type are looked for when the user names no file."""
    type_alone_overridden = "SAM_MODEL_TYPE" in config.OVERRIDDEN and "SAM_CHECKPOINT" not in config.OVERRIDDEN
    if model_type == config.SAM_MODEL_TYPE and not type_alone_overridden:
        return config.SAM_CHECKPOINT
    if model_type == "vit_demo":
        return config.DEMO_CHECKPOINT
    return config.WEIGHTS_DIR / OFFICIAL_FILES[model_type].name


def locate_weights(model_type: str, checkpoint: Path | None, fetch: bool = True) -> Weights:
    """The weights to use: the file the user named, or the model type's default one.

    An official file that is missing from its default place is downloaded to it, or, without `fetch`, taken as if it
    were there. Raises UsageError when a file that the user named is missing, and when the download fails.
    """
    path = checkpoint or default_checkpoint(model_type)
    official = OFFICIAL_FILES.get(model_type)
    if not path.exists():
        if official is None or path.absolute() != config.WEIGHTS_DIR / official.name:
            raise UsageError(
                f"{path}: SAM weights not found; give the path of {model_type} weights to --sam-checkpoint"
            )
        if not fetch:
            return Weights(path, official.sha256, "official, to be downloaded")
        download(official, path)
    try:
        checksum = sha256(path)
    except OSError as error:
        raise UsageError(f"{path}: SAM weights cannot be read ({error.strerror})") from None
    if official is None:
        return Weights(path, checksum, "demo weights, for synthetic scenes only")
    return Weights(path, checksum, "official" if checksum == official.sha256 else "NOT the official file")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def download(official: OfficialFile, path: Path) -> None:
    """Fetch an official file; it takes its place only once its checksum is right. Raises UsageError."""
    url = BASE_URL + official.name
    digest = hashlib.sha256()
    try:
        with atomic_file(path) as part, urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            size = int(response.headers.get("Content-Length") or 0)
            with open(part, "wb") as file, tqdm(total=size, desc=official.name, unit="B", unit_scale=True) as bar:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
            if digest.hexdigest() != official.sha256:
                raise UsageError(
                    f"{url}: what arrived has the wrong SHA-256 (cut off, or changed on the way); try again"
                )
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UsageError(
            f"SAM weights cannot be downloaded ({reason}): fetch {url} elsewhere and put it at {path}; "
            "without weights, `make demo` runs on synthetic scenes"
        ) from None
