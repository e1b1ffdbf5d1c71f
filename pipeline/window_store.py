"""Stores the finished windows of a map on disk, for other processes and for the next run."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rasters.raster import RawRaster
from utils import LOG, Window, atomic_write, differing_keys

VERSION = 2  # of the folder's layout
HEADER_NAME = "made_with.json"


class ComputedWindow(NamedTuple):
    """The results of a window."""

    scores: np.ndarray  # (h, w) float32
    table: np.ndarray | None = None  # numbers about the window's regions, any shape and type; None: there are none


class WindowStore:
    """A float32 raster that any number of processes fill window by window, in any order.

    It is a folder with one file per window; each file appears whole or not at all. Windows do not share a file, because
    machines that write to one file of a network file system can overwrite each other's bytes. Where windows overlap,
    each keeps only the part that it owns, so their order does not matter. The folder's name contains a
    checksum of the map's parameters, so that it never holds windows made with other parameters.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], parts: Mapping[Window, Window], made_with: dict[str, Any]
    ) -> None:
        """`path`: the folder's path without the checksum. `parts`: what each window of the map owns (`owned_parts`).

        `made_with`: parameters of the map, JSON.
        """
        self.shape = shape
        self._parts = parts
        self._header = {"version": VERSION, "shape": list(shape), **json.loads(json.dumps(made_with))}
        checksum = hashlib.sha256(json.dumps(self._header, sort_keys=True).encode()).hexdigest()[:16]
        self._path = path
        self.folder = path.with_name(f"{path.name}-{checksum}")

    def begin(self) -> frozenset[Window]:
        """Create the folder, or resume the one of an earlier run, and remove the folders of other parameters.

        Returns the finished windows. Raises OSError if the folder cannot be created.
        """
        for other in self._path.parent.glob(f"{self._path.name}-*"):
            if other != self.folder:
                _warn_of_difference(other, self._header)
                shutil.rmtree(other, ignore_errors=True)
        atomic_write(self.folder / HEADER_NAME, json.dumps(self._header, indent=1).encode())
        finished = self.finished()
        if finished:
            LOG.info("%s: %d of %d windows already finished", self._path, len(finished), len(self._parts))
        return finished

    def finished(self) -> frozenset[Window]:
        """Return the finished windows; empty if there is no folder."""
        return frozenset(window for window in self._parts if _has_size(self._file(window)))

    @contextmanager
    def removed_if_empty(self) -> Iterator[None]:
        """Remove the store if the block fails or is interrupted before any window is finished."""
        try:
            yield
        except BaseException:
            self.remove_if_empty()
            raise

    def remove_if_empty(self) -> None:
        """Remove the store if no window is finished."""
        if not self.finished():
            self.remove()

    def remove(self) -> None:
        """Remove the store."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, window: Window, computed: ComputedWindow) -> None:
        """Write the results of a window. Raises OSError if the disk is full or the folder is gone."""
        if computed.table is not None:  # first, because a window is finished when its scores are there
            with _renamed_to(self._table_path(window)) as path, open(path, "wb") as file:
                np.save(file, computed.table)
                os.fsync(file.fileno())
        part = self._parts[window]
        y, x = part.y - window.y, part.x - window.x
        scores = self._file(window)
        with _renamed_to(scores.path) as path:
            new = RawRaster(path, scores.shape)
            new.create()
            owned = computed.scores[y : y + part.height, x : x + part.width]
            new.write(Window(0, 0, part.width, part.height), owned)

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of any window of the raster, (h, w) float32. Raises OSError if a part is not finished."""
        values = np.empty((window.height, window.width), np.float32)
        for whole, shared in self.owners(window):
            part = self._parts[whole]
            target = Window(shared.x - window.x, shared.y - window.y, shared.width, shared.height)
            values[target.slices] = self._file(whole).read(shared._replace(x=shared.x - part.x, y=shared.y - part.y))
        return values

    def owners(self, window: Window) -> Iterator[tuple[Window, Window]]:
        """Yield the windows of the map that own pixels of any window of the raster, each with its owned pixels."""
        for whole, part in self._parts.items():
            left, top = max(part.x, window.x), max(part.y, window.y)
            width = min(part.x + part.width, window.x + window.width) - left
            height = min(part.y + part.height, window.y + window.height) - top
            if width > 0 and height > 0:
                yield whole, Window(left, top, width, height)

    def read_table(self, window: Window) -> np.ndarray:
        """Read the table of a finished window. Raises OSError if it has none."""
        return np.load(self._table_path(window), allow_pickle=False)

    def _table_path(self, window: Window) -> Path:
        return self.folder / f"{self._file(window).path.name}.npy"

    def _file(self, window: Window) -> RawRaster:
        part = self._parts[window]
        return RawRaster(self.folder / "_".join(map(str, window)), (part.height, part.width))


@contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, which is renamed to it. Raises OSError.

    Its name is unique, because after a lost connection another machine may compute the same window.
    """
    new = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield new
        new.rename(path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def _has_size(file: RawRaster) -> bool:
    try:
        return file.path.stat().st_size == 4 * file.shape[0] * file.shape[1]
    except FileNotFoundError:
        return False


def _warn_of_difference(folder: Path, header: dict[str, Any]) -> None:
    try:
        found = json.loads((folder / HEADER_NAME).read_text(encoding="utf-8"))
        differing = differing_keys(found, header)
    except (OSError, ValueError, AttributeError):
        differing = []
    LOG.warning(
        "%s: windows of an interrupted run are computed again, its settings differ: %s",
        folder,
        ", ".join(differing) or "header",
    )
