"""Rasters that are read window by window: the interface, arrays in memory, and plain files for intermediate results."""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from utils import Window

STRIP_BYTES = 8 << 20  # at most, of a full-width window in float32
READERS = min(os.cpu_count() or 1, 4)  # threads: decompressing a map takes longer than most work on it
STRIP_ROWS = 256  # height of a tile of the maps: a strip begins at a tile's edge, so that no tile is decoded twice

Item = TypeVar("Item")


class Raster(Protocol):
    """Interface of a raster that is read window by window."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w); may be called on several threads."""


@dataclass(frozen=True)
class MemoryRaster:
    """An array, (H, W) or (H, W, channels), as a raster."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.values.shape[0], self.values.shape[1]

    def read(self, window: Window) -> np.ndarray:
        """Return a view of the pixels of a window, (h, w) or (h, w, channels)."""
        return self.values[window.slices]


def strips(shape: tuple[int, int]) -> Iterator[Window]:
    """Yield full-width windows that cover a raster, from the top.

    Each but the last has a multiple of 256 rows and takes at most 8 MiB in float32, unless 256 rows take more.
    """
    height, width = shape
    rows = max(STRIP_BYTES // (4 * width) // STRIP_ROWS, 1) * STRIP_ROWS
    for y in range(0, height, rows):
        yield Window(0, y, width, min(rows, height - y))


def blocks(shape: tuple[int, int], bands: int) -> Iterator[Window]:
    """Yield windows that cover a raster of several bands, in `strips` that are divided to take at most 8 MiB each."""
    columns = max(STRIP_BYTES // (4 * STRIP_ROWS * bands) // STRIP_ROWS, 1) * STRIP_ROWS
    if bands == 1 or columns >= shape[1]:
        columns = shape[1]
    for strip in strips((shape[0], shape[1] * bands)):
        for x in range(0, shape[1], columns):
            yield Window(x, strip.y, min(columns, shape[1] - x), strip.height)


def read_strips(raster: Raster) -> Iterator[np.ndarray]:
    """Yield the pixels of a raster's `strips` in order; the next ones are read ahead."""
    return (pixels for _, pixels in read_ahead(raster.read, strips(raster.shape), READERS))


def read_ahead(
    read: Callable[[Window], Item], windows: Iterable[Window], threads: int = 1
) -> Iterator[tuple[Window, Item]]:
    """Yield each window with the result of `read`, in order; each thread reads one of the next windows ahead."""
    with ThreadPoolExecutor(threads, "reader") as readers:
        pending: deque[tuple[Window, Future[Item]]] = deque()
        for window in windows:
            pending.append((window, readers.submit(read, window)))
            if len(pending) > threads:
                first, item = pending.popleft()
                yield first, item.result()
        for first, item in pending:
            yield first, item.result()


@dataclass(frozen=True)
class RawRaster:
    """A float32 raster of (H, W) pixels in a plain file, opened at every call.

    Windows may be read and written from several threads and processes. A failure, for example on a full disk, raises an
    OSError that names the file; with a memory map it would end the process.
    """

    path: Path
    shape: tuple[int, int]  # height and width

    def create(self) -> None:
        """Create the file, filled with 0; replace an existing one. Raises OSError if it cannot be created."""
        with self._opened(os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            os.truncate(file, 4 * self.shape[0] * self.shape[1])

    def write(self, window: Window, values: np.ndarray) -> None:
        """Write the pixels of a window to the disk. Raises ValueError unless `values` is (h, w) float32."""
        if values.shape != (window.height, window.width) or values.dtype != np.float32:
            raise ValueError(f"{values.dtype} of {values.shape} for {window}")
        with self._opened(os.O_WRONLY) as file:
            self._move(lambda buffer, offset: os.pwrite(file, buffer, offset), window, np.ascontiguousarray(values))
            os.fdatasync(file)

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w) float32; 0 where none were written."""
        values = np.empty((window.height, window.width), np.float32)
        with self._opened(os.O_RDONLY) as file:
            self._move(lambda buffer, offset: os.preadv(file, [buffer], offset), window, values)
        return values

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        file = os.open(self.path, flags, 0o666)
        try:
            yield file
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        finally:
            os.close(file)

    def _move(self, move: Callable[[memoryview, int], int], window: Window, values: np.ndarray) -> None:
        height, width = self.shape
        if not (0 <= window.x <= width - window.width and 0 <= window.y <= height - window.height):
            raise ValueError(f"{window} reaches beyond {self.shape}")
        rows = values.reshape(1, -1) if window.width == width else values
        for row, pixels in enumerate(rows):
            offset = 4 * ((window.y + row) * width + window.x)
            rest = memoryview(pixels).cast("B")
            while rest:  # the system may transfer fewer bytes than requested
                moved = move(rest, offset)
                if not moved:
                    raise OSError(errno.EIO, "file is truncated")
                offset += moved
                rest = rest[moved:]
