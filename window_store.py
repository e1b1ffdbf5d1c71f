"""Keeps the finished windows of a map beside its output, for the next run to go on from where this one ended."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raster_store import RasterStore
from utils import LOG, Window, differing_keys, owned_parts

VERSION = 1  # of the journal


class WindowStore(RasterStore):
    """A float32 raster that is filled window by window, and lives on when it is not finished.

    Two files: one with the pixels, and a journal whose first line says what the map is made with, and each further line
    names a window whose pixels are on the disk. Where windows overlap, each writes only what no later one covers, so
    that their order is of no account, and several processes may write at once.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], windows: Sequence[Window], made_with: dict[str, Any]
    ) -> None:
        """`path`: of the pixels. `windows`: all of the map, in order. `made_with`: JSON that another run must share."""
        super().__init__(path, shape)
        self._journal_path = path.with_suffix(".journal")
        self._parts = owned_parts(windows)
        self._header = {"version": VERSION, "shape": list(shape), **json.loads(json.dumps(made_with))}
        self.finished: frozenset[Window] = frozenset()  # by an earlier run
        self._any_finished = False

    def __enter__(self) -> "WindowStore":
        """Pick up what an earlier run left, or begin anew. Raises OSError where files cannot be made."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.finished = self._read_journal()
        if self.finished:
            LOG.info("%s: %d of %d windows are there already", self.path, len(self.finished), len(self._parts))
            self._file = os.open(self.path, os.O_RDWR)
            _drop_unfinished_line(self._journal_path)
            self._journal = os.open(self._journal_path, os.O_WRONLY | os.O_APPEND)
            self._any_finished = True
            return self
        super().__enter__()
        try:
            self._journal = os.open(self._journal_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
            self._note(json.dumps(self._header))
        except OSError:
            super().__exit__()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """Remove both files where the context ended well, or nothing was finished; else leave them to the next run."""
        os.close(self._journal)
        if kind is None or not self._any_finished:
            self._journal_path.unlink(missing_ok=True)
            super().__exit__()
        else:
            os.close(self._file)

    def write(self, window: Window, values: np.ndarray) -> None:
        """Set the pixels of a window, (h, w) float32, and note that it is finished once they are on the disk."""
        part = self._parts[window]
        y, x = part.y - window.y, part.x - window.x
        super().write(part, values[y : y + part.height, x : x + part.width])
        os.fdatasync(self._file)
        self._any_finished = True
        self._note(" ".join(map(str, window)))

    def _note(self, line: str) -> None:
        content = f"{line}\n".encode()
        if os.write(self._journal, content) < len(content):
            raise OSError(28, "No space left on device", str(self._journal_path))
        os.fdatasync(self._journal)

    def _read_journal(self) -> frozenset[Window]:
        """The windows that an earlier run finished; says why where they cannot be used."""
        try:
            header, *lines = self._journal_path.read_text(encoding="utf-8").split("\n")
            found = json.loads(header)
            size = self.path.stat().st_size
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError):
            LOG.warning("%s: is damaged; its windows are computed again", self._journal_path)
            return frozenset()
        differing = differing_keys(found, self._header) if isinstance(found, dict) else ["file"]
        if differing:
            LOG.warning(
                "%s: windows of an interrupted run with another %s are computed again", self.path, ", ".join(differing)
            )
            return frozenset()
        if size != 4 * self.shape[0] * self.shape[1]:
            LOG.warning("%s: is damaged; its windows are computed again", self.path)
            return frozenset()
        # What follows the last line break was cut off while it was written: digits may be missing.
        return frozenset(window for line in lines[:-1] if (window := _parsed(line)) in self._parts)


def _drop_unfinished_line(path: Path) -> None:
    content = path.read_bytes()
    os.truncate(path, content.rfind(b"\n") + 1)


def _parsed(line: str) -> Window | None:
    try:
        return Window(*map(int, line.split()))
    except (TypeError, ValueError):
        return None
