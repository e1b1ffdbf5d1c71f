"""Runs the stages of events in this process, with one SAM, which is loaded for the first missing window.

Two events are in hand: while the windows of one are computed, the other one is opened or its maps are written. The
calling thread does the device work. A reader reads and scales the next window, a writer finishes and stores the
previous one, and a third thread takes the steps between windows (`pipeline.stage.advance`).
"""

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from cli.progress import Progress, follow_run
from pipeline.feature_cache import FeatureCache
from pipeline.stage import (
    Stage,
    StagePlan,
    StageProgress,
    StageRequest,
    advance,
    count_windows,
    event_locks,
    join_reasons,
)
from pipeline.window_store import WindowStore
from sam.engine import SamEngine
from sam.settings import EngineSettings
from sam.weights import OTHER_FILE, SamIdentity
from utils import Event, Listing, UsageError, Window

EVENTS_IN_HAND = 2
M_ARENA_MAX = -8  # parameter of glibc's mallopt

EngineLoader = Callable[[], SamEngine]


def run_here(name: str, listing: Listing, plan: StagePlan, settings: EngineSettings) -> int:
    """Run the stages of every event; returns the exit code. `name`: name of the run, for its summary.

    In windows common to both stages, stage 2 reuses the features that stage 1 encoded.
    """
    with ExitStack() as stack:
        load_engine = cache(lambda: stack.enter_context(settings.load()))
        if settings.weights.origin == OTHER_FILE:
            load_engine()  # weights that cannot be used are named before any event is opened
        with follow_run(name, listing, count_windows(plan)) as progress:
            LocalRun(listing, plan, settings.identity, load_engine, progress).run()
    return progress.summary.exit_code


@dataclass(eq=False)
class _Event:
    """An event in hand."""

    event: Event
    held: ExitStack = field(default_factory=ExitStack)  # its locks and features
    features: FeatureCache | None = None
    reasons: list[str | None] = field(default_factory=list)  # why stages were skipped, None for computed ones
    step: StageProgress = field(default_factory=lambda: StageProgress([]))  # the last one
    store: WindowStore | None = None  # of the stage whose windows are computed
    left: int = 0  # windows of this stage that are not stored
    failed: bool = False

    @property
    def stage(self) -> Stage:
        """The stage whose windows are computed."""
        assert self.step.stage is not None
        return self.step.stage


class _NextWindow(NamedTuple):
    """A window that is being read."""

    state: _Event
    window: Window
    item: Future[Any]  # the result of `Stage.read`


class LocalRun:
    """Runs the stages of the events of a listing."""

    def __init__(
        self, listing: Listing, plan: StagePlan, sam: SamIdentity, load_engine: EngineLoader, progress: Progress
    ) -> None:
        self._plan = plan
        self._sam = sam
        self._load_engine = load_engine
        self._progress = progress
        self._to_begin = deque(listing.events)
        self._in_hand: list[_Event] = []
        # Events with windows to compute, in order; an error that ends the run; None: every event has ended.
        self._ready: SimpleQueue[_Event | BaseException | None] = SimpleQueue()
        self._missing: deque[tuple[_Event, Window]] = deque()  # windows of the stage whose windows are computed
        self._reader, self._writer, self._steps = (ThreadPoolExecutor(1, name) for name in ("read", "write", "step"))
        self._storing: Future[None] | None = None  # the last window given to the writer

    def run(self) -> None:
        """Run until every event is done, skipped or failed. Raises UsageError if the run is impossible as requested.

        An interrupted run ends after the step and the window that other threads are working on.
        """
        _share_freed_memory()
        try:
            if self._to_begin:
                for _ in range(min(EVENTS_IN_HAND, len(self._to_begin))):
                    self._submit(self._steps, self._begin_next)
                self._compute_windows()
        finally:
            self._to_begin.clear()
            for thread in (self._reader, self._writer, self._steps):
                thread.shutdown(cancel_futures=True)
            for state in self._in_hand:
                _release(state)

    # On the calling thread.
    def _compute_windows(self) -> None:
        following = self._begin_reading(wait=True)
        while following is not None:
            current, following = following, self._begin_reading(wait=False)
            self._compute(*current)
            following = following or self._begin_reading(wait=True)

    def _begin_reading(self, wait: bool) -> _NextWindow | None:
        """Begin to read the next window; returns None if every event has ended, or without `wait`, if none is ready."""
        while (following := self._next_missing(wait)) is not None:
            state, window = following
            if state.failed:
                continue
            try:
                engine = self._load_engine()
            except Exception as error:
                self._fail(state, error)
            else:
                item = self._reader.submit(state.stage.read, window, engine, state.features)
                return _NextWindow(state, window, item)
        return None

    def _next_missing(self, wait: bool) -> tuple[_Event, Window] | None:
        if not self._missing:
            try:
                state = self._ready.get(block=wait)
            except Empty:
                return None
            if state is None:
                return None
            if isinstance(state, BaseException):
                raise state
            self._missing.extend((state, window) for window in state.step.missing)
        return self._missing.popleft()

    def _compute(self, state: _Event, window: Window, item: Future[Any]) -> None:
        """Do the device work of a window, then hand it to the writer, once that has stored the previous one."""
        try:
            encoded = state.stage.encode(window, item.result(), self._load_engine(), state.features)
        except Exception as error:
            self._fail(state, error)
            return
        if self._storing is not None:
            self._storing.result()
        self._storing = self._submit(self._writer, self._store, state, window, encoded)

    def _fail(self, state: _Event, error: Exception) -> None:
        """Compute no more windows of an event; it ends when the writer has stored those before.

        Raises the error if it is a UsageError, which ends the run.
        """
        if isinstance(error, UsageError):
            raise error
        state.failed = True
        self._submit(self._writer, self._submit, self._steps, self._end, state, error)

    def _submit(self, thread: ThreadPoolExecutor, work: Callable[..., object], *arguments: Any) -> Future[None]:
        """Do some work on another thread. An error that `work` raises ends the run."""

        def call() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                self._ready.put(error)

        return thread.submit(call)

    # On the writer's thread.
    def _store(self, state: _Event, window: Window, encoded: Any) -> None:
        if state.failed:
            return
        assert state.store is not None
        assert state.features is not None
        try:
            state.store.write(window, state.stage.score(window, encoded))
        except Exception as error:
            self._fail(state, error)
            return
        state.left -= 1
        self._progress.units_done(state.event)
        if not state.left:
            if not state.step.rest:
                state.features.close()
            self._submit(self._steps, self._take_step, state, state.step.rest, state.stage)

    # On the thread of the steps.
    def _begin_next(self) -> None:
        if not self._to_begin:
            return  # an event that ended at once has begun the last one
        state = _Event(self._to_begin.popleft())
        self._in_hand.append(state)
        self._progress.begin(state.event)
        try:
            requests = self._plan(state.event)
            state.held.enter_context(event_locks(requests))
            shared = requests[-1].tile_event() if len(requests) > 1 else []
            state.features = state.held.enter_context(FeatureCache(requests[0].folder, shared))
        except Exception as error:
            self._end(state, error)
        else:
            self._take_step(state, requests)

    def _take_step(self, state: _Event, requests: Sequence[StageRequest], finished: Stage | None = None) -> None:
        try:
            state.step = advance(finished, requests, self._sam)
        except Exception as error:
            self._end(state, error)
            return
        state.reasons += state.step.reasons
        if state.step.stage is None:
            self._end(state)
            return
        state.store, state.left = state.stage.store(), len(state.step.missing)
        self._progress.units_done(state.event, state.step.finished)
        self._ready.put(state)

    def _end(self, state: _Event, error: Exception | None = None) -> None:
        """Record how an event ended, and begin the next one."""
        if state not in self._in_hand:
            return  # another of its windows failed before
        if isinstance(error, UsageError):
            raise error
        self._in_hand.remove(state)
        try:
            _release(state)
        except OSError as problem:
            error = error or problem
        if error is None:
            self._progress.done(state.event, join_reasons(state.reasons))
        else:
            self._progress.stopped(state.event, error)
        if self._to_begin:
            self._submit(self._steps, self._begin_next)
        elif not self._in_hand:
            self._ready.put(None)


def _release(state: _Event) -> None:
    """Release the locks and features of an event; remove its store if no window is finished."""
    with state.held:
        if state.store is not None:
            state.store.remove_if_empty()


def _share_freed_memory() -> None:
    """Limit glibc's malloc to two arenas. By default each thread has one, which keeps what the thread frees.

    This halves the memory of a run. Does nothing without glibc.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
