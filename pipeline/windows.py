"""Lets reading, device work, host work and writing overlap, at most one window apart, so that memory stays bounded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from rasters.raster import read_ahead
from utils import Window

Item = TypeVar("Item")


class WindowComputer(Protocol):
    """How windows are computed, in three parts: while one window is in one of them, others may be in the others."""

    def read(self, window: Window) -> Any:
        """What files give for a window; on any thread."""

    def compute(self, window: Window, item: Any) -> Callable[[], np.ndarray]:
        """Use the device, on which one window is at a time. `item`: from `read`.

        Returns the rest of the work, for any thread, which gives the window's pixels, (h, w) float32.
        """


class Sink(Protocol):
    """Whatever keeps windows."""

    def write(self, window: Window, values: np.ndarray) -> None:
        """Keep the pixels of a window, (h, w) float32."""


def compute_windows(
    work: WindowComputer, windows: Sequence[Window], sink: Sink, window_done: Callable[[], object]
) -> None:
    """Compute windows and write them to `sink`; `window_done` is called for each."""

    def begun() -> Iterator[tuple[Window, Callable[[], np.ndarray]]]:
        for window, item in read_ahead(work.read, windows):
            yield window, work.compute(window, item)

    with BackgroundWriter(sink) as writer:
        for window, finish in delay_by_one(begun()):
            writer.write(window, finish())
            window_done()


def delay_by_one(items: Iterable[Item]) -> Iterator[Item]:
    """Yield every item when the one after it has been made: what was begun for it on other threads has time to end."""
    waiting: list[Item] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting


class BackgroundWriter:
    """Writes windows on a thread of its own, in order; a context manager that ends when all are written."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "BackgroundWriter":
        """Nothing to prepare."""
        return self

    def write(self, window: Window, values: np.ndarray) -> None:
        """Begin to write; waits for the window before. Raises the OSError that writing that one met."""
        self._wait()
        self._writing = self._thread.submit(self._sink.write, window, values)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the last window; raises the OSError that writing it met."""
        self._thread.shutdown()
        if kind is None:
            self._wait()
