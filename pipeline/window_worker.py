"""Computes windows, one at a time on the device, while the next one is read and the previous one is written."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.feature_cache import FeatureCache
from pipeline.stage import Stage
from pipeline.stage2 import Stage2Settings
from pipeline.window_store import WindowStore
from sam.engine import SamEngine
from utils import Window

STAGES_OPEN = 8  # stages open at once, with their files
EVENTS_CACHED = 4  # events whose features are kept for stage 2

Key = TypeVar("Key")
Value = TypeVar("Value")


class _OpenStage(NamedTuple):
    """An opened stage with its store and features."""

    stage: Stage
    store: WindowStore
    features: FeatureCache | None


class _Encoding(NamedTuple):
    """A window on the device."""

    opened: _OpenStage
    encoded: Future[Any]  # the result of `Stage.encode`


class WindowWorker:
    """Keeps stages open between windows, and features of stage 1 for stage 2."""

    def __init__(self, load_engine: Callable[[], SamEngine], device: Executor, scratch: Path | None = None) -> None:
        """`load_engine`: called on the device, for the first window. `device`: does the device work, on one thread.

        `scratch`: folder for the features that are not kept in memory; None: the event's folder of outputs.
        """
        self._load_engine = load_engine
        self._engine: SamEngine | None = None
        self._device = device
        self._scratch = scratch
        self._reader, self._writer = (ThreadPoolExecutor(1, name) for name in ("read", "write"))
        self._changing = threading.Lock()  # held while the following two are changed
        self._stages: OrderedDict[int, _OpenStage] = OrderedDict()
        self._caches: OrderedDict[Path, FeatureCache] = OrderedDict()

    def submit(self, key: int, fetch: Callable[[], Stage], window: Window, keep_features: bool) -> Future[None]:
        """Have a window computed and written to the event's store, in the order of the calls.

        `key`: identifies the stage in the run. `fetch`: returns the stage; called if it is not open yet.
        `keep_features`: both stages of the event are computed, so features are cached.
        The future's error is an EventError if a file cannot be used, OSError if the window cannot be written.
        """
        reading = self._reader.submit(self._read, key, fetch, window, keep_features)
        return self._writer.submit(self._write, window, reading)

    def _read(self, key: int, fetch: Callable[[], Stage], window: Window, keep_features: bool) -> _Encoding:
        opened = self._open(key, fetch, keep_features)
        if self._engine is None:
            self._engine = self._device.submit(self._load_engine).result()
        inputs = opened.stage.read(window, self._engine, opened.features)
        encoded = self._device.submit(opened.stage.encode, window, inputs, self._engine, opened.features)
        return _Encoding(opened, encoded)

    def _write(self, window: Window, reading: Future[_Encoding]) -> None:
        opened, encoded = reading.result()
        opened.store.write(window, opened.stage.score(window, encoded.result()))

    def forget(self, key: int, is_last: bool) -> None:
        """Close a stage that has no further windows. `is_last`: also drop the event's features."""
        with self._changing:
            opened = self._stages.pop(key, None)
            if opened is not None and is_last:
                self._caches.pop(opened.stage.event.folder, None)

    def close(self) -> None:
        """Wait for the windows in hand, and cancel the others."""
        for thread in (self._reader, self._writer):
            thread.shutdown(cancel_futures=True)

    def _open(self, key: int, fetch: Callable[[], Stage], keep_features: bool) -> _OpenStage:
        with self._changing:
            if key not in self._stages:
                stage = fetch()
                stage.check_images()
                features = self._cache(stage) if keep_features else None
                self._stages[key] = _OpenStage(stage, stage.store(), features)
            return _touch(self._stages, key, STAGES_OPEN)

    def _cache(self, stage: Stage) -> FeatureCache:
        """Return the event's cache. If it was dropped, its features are computed again."""
        if stage.event.folder not in self._caches:
            windows = Stage2Settings(overlap=stage.request.settings.overlap).tile(stage.images.shape)
            self._caches[stage.event.folder] = FeatureCache(self._scratch or stage.folder, windows)
        return _touch(self._caches, stage.event.folder, EVENTS_CACHED)


def _touch(kept: OrderedDict[Key, Value], key: Key, most: int) -> Value:
    """Return a value and mark it as used; if there are more than `most`, drop the least recently used ones."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]
