"""Overlaps reading, device work, host work and writing of successive windows, with bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from rasters.raster import read_ahead
from utils import Window

Item = TypeVar("Item")


class Sink(Protocol):
    """Interface of an object that stores windows."""

    def write(self, window: Window, values: np.ndarray) -> None:
        """Store the pixels of a window, (h, w) float32."""


def compute_windows(
    read: Callable[[Window], Item],
    compute: Callable[[Window, Item], Callable[[], np.ndarray]],
    windows: Sequence[Window],
    sink: Sink,
    window_done: Callable[[], object],
) -> None:
    """Compute windows and write them to `sink`; `window_done` is called after each.

    `read` and `compute`: the methods of `Stage`, with the engine and the cache bound.
    """

    def begun() -> Iterator[tuple[Window, Callable[[], np.ndarray]]]:
        for window, item in read_ahead(read, windows):
            yield window, compute(window, item)

    with BackgroundWriter(sink) as writer:
        for window, finish in delay_by_one(begun()):
            writer.write(window, finish())
            window_done()


def delay_by_one(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item one step late, so that its background work can finish."""
    waiting: list[Item] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting


class BackgroundWriter:
    """Writes windows on one thread, in order; a context manager that ends when all are written."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "BackgroundWriter":
        """Return the writer."""
        return self

    def write(self, window: Window, values: np.ndarray) -> None:
        """Start to write a window when the previous one is written. Raises the OSError of writing the previous one."""
        self._wait()
        self._writing = self._thread.submit(self._sink.write, window, values)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until the last window is written. Raises the OSError of writing it."""
        self._thread.shutdown()
        if kind is None:
            self._wait()
