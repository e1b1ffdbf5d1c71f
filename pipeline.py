"""Lets reading, device work, host work and writing overlap, at most one window apart, so that memory stays bounded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from raster_store import RasterStore
from utils import Window

Item = TypeVar("Item")


def read_ahead(read: Callable[[Window], Item], windows: Sequence[Window]) -> Iterator[tuple[Window, Item]]:
    """Yield every window with what `read` gives for it; while one is worked on, a thread reads the next."""
    if not windows:
        return
    with ThreadPoolExecutor(1, "reader") as reader:
        coming = reader.submit(read, windows[0])
        for window, following in zip(windows, [*windows[1:], None], strict=True):
            item = coming.result()
            if following is not None:
                coming = reader.submit(read, following)
            yield window, item


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Yield every item when the one after it has been made: what was begun for it on other threads has time to end."""
    waiting: list[Item] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting


class BackgroundWriter:
    """Writes windows to a store on a thread of its own, in order; a context manager that ends when all are written."""

    def __init__(self, store: RasterStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "BackgroundWriter":
        """Nothing to prepare."""
        return self

    def write(self, window: Window, values: np.ndarray) -> None:
        """Begin to write; waits for the window before. Raises the OSError that writing that one met."""
        self._wait()
        self._writing = self._thread.submit(self._store.write, window, values)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the last window; raises the OSError that writing it met."""
        self._thread.shutdown()
        if kind is None:
            self._wait()
