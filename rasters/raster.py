"""Rasters that are read window by window, and the plain file that one is worked on in before it becomes a GeoTIFF."""

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

STRIP_BYTES = 8 << 20  # of a full-width window in float32
READERS = min(os.cpu_count() or 1, 4)  # threads: to unpack a map takes longer than most of what is done with it
STRIP_ROWS = 256  # a tile of the GeoTIFFs that this program writes: no tile is decoded for two bands

Item = TypeVar("Item")


class Raster(Protocol):
    """Whatever has a size and gives its pixels window by window."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def read(self, window: Window) -> np.ndarray:
        """The pixels of a window, (h, w); may be called on several threads."""


@dataclass(frozen=True)
class MemoryRaster:
    """An array, (H, W) or (H, W, channels), as a raster."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.values.shape[0], self.values.shape[1]

    def read(self, window: Window) -> np.ndarray:
        """The pixels of a window, (h, w) or (h, w, channels), not copied."""
        return self.values[window.slices]


def strips(shape: tuple[int, int]) -> Iterator[Window]:
    """Cover a raster with full-width windows, from the top.

    Each has a multiple of 256 rows (but the last one) and at most 8 MiB in float32, or 256 rows where these take more.
    """
    height, width = shape
    rows = max(STRIP_BYTES // (4 * width) // STRIP_ROWS, 1) * STRIP_ROWS
    for y in range(0, height, rows):
        yield Window(0, y, width, min(rows, height - y))


def read_strips(raster: Raster) -> Iterator[np.ndarray]:
    """The pixels of a raster's `bands`, one after the other; the next ones are read meanwhile."""
    return (pixels for _, pixels in read_ahead(raster.read, strips(raster.shape), READERS))


def read_ahead(
    read: Callable[[Window], Item], windows: Iterable[Window], threads: int = 1
) -> Iterator[tuple[Window, Item]]:
    """Yield every window with what `read` gives for it; while one is worked on, each thread reads one of the next."""
    with ThreadPoolExecutor(threads, "reader") as readers:
        coming: deque[tuple[Window, Future[Item]]] = deque()
        for window in windows:
            coming.append((window, readers.submit(read, window)))
            if len(coming) > threads:
                first, item = coming.popleft()
                yield first, item.result()
        for first, item in coming:
            yield first, item.result()


@dataclass(frozen=True)
class RawRaster:
    """A float32 raster of (H, W) pixels in a plain file, which is opened for every call.

    Windows may be read and written from several threads and processes. A failure, as on a full disk, is an OSError that
    names the file; a memory map would end the process instead.
    """

    path: Path
    shape: tuple[int, int]  # height and width

    def create(self) -> None:
        """Make the file, filled with 0, over one that is there. Raises OSError where it cannot be made."""
        with self._opened(os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            os.truncate(file, 4 * self.shape[0] * self.shape[1])

    def write(self, window: Window, values: np.ndarray) -> None:
        """Set the pixels of a window, which are then on the disk. `values`: (h, w) float32."""
        if values.shape != (window.height, window.width) or values.dtype != np.float32:
            raise ValueError(f"{values.dtype} of {values.shape} for {window}")
        with self._opened(os.O_WRONLY) as file:
            self._move(lambda buffer, offset: os.pwrite(file, buffer, offset), window, np.ascontiguousarray(values))
            os.fdatasync(file)

    def read(self, window: Window) -> np.ndarray:
        """The pixels of a window, (h, w) float32; 0 where none were written."""
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
        together = values.reshape(1, -1) if window.width == width else values
        for row, pixels in enumerate(together):
            offset = 4 * ((window.y + row) * width + window.x)
            rest = memoryview(pixels).cast("B")
            while rest:  # the system may move fewer bytes than asked
                moved = move(rest, offset)
                if not moved:
                    raise OSError(errno.EIO, "was cut off")
                offset += moved
                rest = rest[moved:]
