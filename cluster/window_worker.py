"""Computes windows for another process: one at a time on the device, while one is read and one is written."""

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from pipeline.feature_cache import FeatureCache
from pipeline.stage import Stage
from pipeline.stage2 import Stage2Settings
from pipeline.window_store import WindowStore
from sam.engine import SamEngine
from utils import Window

STAGES_OPEN = 8  # stages open at once, with their files
EVENTS_CACHED = 4  # events whose features are kept for stage 2
CACHE_BYTES = 64 << 20  # of an event's features in memory; the others go to a temporary file

Key = TypeVar("Key")
Value = TypeVar("Value")


class _OpenStage(NamedTuple):
    """An opened stage with its store and features."""

    stage: Stage
    store: WindowStore
    features: FeatureCache | None


class WindowWorker:
    """Keeps stages open between windows, and features of stage 1 for stage 2."""

    def __init__(self, engine: SamEngine) -> None:
        self._engine = engine
        self._device = threading.Lock()
        self._opening = threading.Lock()
        self._stages: OrderedDict[int, _OpenStage] = OrderedDict()
        self._caches: OrderedDict[Path, FeatureCache] = OrderedDict()

    def compute(self, key: int, fetch: Callable[[], Stage], window: Window, keep_features: bool) -> None:
        """Compute a window and write it to the event's store; may be called on several threads.

        `key`: identifies the stage in the run. `fetch`: returns the stage; called if it is not open yet.
        `keep_features`: both stages of the event are computed, so features are cached.
        Raises EventError if a file cannot be used, OSError if the window cannot be written.
        """
        opened = self._open(key, fetch, keep_features)
        inputs = opened.stage.read(window, self._engine, opened.features)
        with self._device:
            encoded = opened.stage.encode(window, inputs, self._engine, opened.features)
        opened.store.write(window, opened.stage.score(window, encoded))

    def _open(self, key: int, fetch: Callable[[], Stage], keep_features: bool) -> _OpenStage:
        with self._opening:
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
            # In a temporary folder of this machine: features never go to the shared file system.
            self._caches[stage.event.folder] = FeatureCache(Path(tempfile.gettempdir()), windows, CACHE_BYTES)
        return _touch(self._caches, stage.event.folder, EVENTS_CACHED)


def _touch(kept: OrderedDict[Key, Value], key: Key, most: int) -> Value:
    """Return a value and mark it as used; if there are more than `most`, drop the least recently used ones."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]
