"""Decides which window each worker computes next, and what happens when a window, a worker or a step fails."""

from collections import deque
from collections.abc import Iterable, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from traceback import format_exception
from typing import Any, NamedTuple, Protocol

from cli.progress import Progress
from pipeline.stage import (
    EQUAL_WORK,
    Stage,
    StagePlan,
    StageProgress,
    StageRequest,
    WindowWork,
    event_locks,
    join_reasons,
)
from utils import AnomalyCDError, Event, UsageError, Window, describe_error

MOST_DEATHS = 3  # workers lost with the same window; then its event fails
MOST_ERRORS = 3  # errors of a window, each on another machine; then its event fails
STEPS = 2  # concurrent steps per worker: with fewer, writing maps could not keep up with a fast GPU


# --- Interface of a pool of workers ----------------------------------------------------------------------------------
class WorkerReady(NamedTuple):
    """A worker that is ready."""

    worker: str
    node: str


class WorkerLost(NamedTuple):
    """A worker ended, and its windows are lost; no answer from it follows."""

    worker: str
    reason: str


class Failure(NamedTuple):
    """An error of a worker or of a step. Can be sent to another process, as not every error can."""

    message: str  # one line
    trace: str
    ends_worker: bool = False  # whether its process may be in a bad state, for example after a GPU error

    @classmethod
    def of(cls, error: Exception, ends_worker: bool = False) -> "Failure":
        """Describe an error."""
        return cls(describe_error(error), "".join(format_exception(error)), ends_worker)

    def to_error(self) -> AnomalyCDError:
        """Return an error with this message; its cause holds the trace, for the log file."""
        error = AnomalyCDError(self.message)
        error.__cause__ = RuntimeError(f"raised by:\n{self.trace}")
        return error


class Answer(NamedTuple):
    """The answer to a call of a worker, or of a step."""

    ticket: int
    value: Any = None
    failure: Failure | None = None


class Pool(Protocol):
    """Interface of a pool: workers that compute windows, and threads or processes for the steps between windows."""

    depth: int  # windows that a worker is given at once, so that one is read while another one is computed
    most_events: int  # events in progress at once

    def compute(self, worker: str, key: int, prepared: Stage, window: Window, keep_features: bool) -> int:
        """Send a window to a worker; see window_worker. Returns the ticket of its answer."""

    def advance(self, finished: Stage | None, stages: Sequence[StageRequest]) -> int:
        """Run an event's next step; see pipeline.stage.advance.

        Returns the ticket of its answer, a StageProgress.
        """

    def forget(self, key: int, is_last: bool) -> None:
        """Release an opened stage that has no further windows. `is_last`: nor has its event."""

    def retire(self, worker: str) -> None:
        """End a worker, which may have ended already; no WorkerLost follows."""

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        """Wait for a limited time, and return the messages since the last call.

        Raises UsageError if there is no worker and none can be started.
        """


# --- The order of the windows ----------------------------------------------------------------------------------------
@dataclass(eq=False, slots=True)
class QueuedWindow:
    """A window to compute."""

    rank: int  # number of its event
    window: Window
    deaths: int = 0  # workers that were lost with it
    errors: int = 0  # file errors, each on another machine
    failed_on: frozenset[str] = frozenset()  # machines on which it failed


@dataclass
class _Waiting:
    """The windows of an event that wait for a worker."""

    failed: list[QueuedWindow] = field(default_factory=list)  # failed before, or were lost with a worker
    unreserved: deque[QueuedWindow] = field(default_factory=deque)
    reserved: dict[str, deque[QueuedWindow]] = field(default_factory=dict)  # by the worker that keeps their features

    def __len__(self) -> int:
        return len(self.failed) + len(self.unreserved) + sum(map(len, self.reserved.values()))


class WindowQueue:
    """The windows of all events that wait for a worker; those of the stage that was ready first come first."""

    def __init__(self) -> None:
        self._events: dict[int, _Waiting] = {}  # by rank, in the order of `add`
        self._length = 0  # cached, because it is read often

    def __len__(self) -> int:
        """The number of waiting windows."""
        return self._length

    @property
    def holds_suspects(self) -> bool:
        """Whether a waiting window was lost together with a worker."""
        return any(queued.deaths for waiting in self._events.values() for queued in waiting.failed)

    def add(self, rank: int, windows: Iterable[Window], owners: dict[Window, str]) -> None:
        """Add an event's windows. `owners`: for each window, the worker that keeps its features, if any."""
        waiting = _Waiting()
        for window in windows:
            owner = owners.get(window)
            queue = waiting.unreserved if owner is None else waiting.reserved.setdefault(owner, deque())
            queue.append(QueuedWindow(rank, window))
        self._length += len(waiting)
        self._events[rank] = waiting

    def put_back(self, queued: QueuedWindow) -> None:
        """Put back a window that failed."""
        self._events[queued.rank].failed.append(queued)
        self._length += 1

    def drop(self, rank: int) -> None:
        """Remove an event's windows."""
        self._length -= len(self._events.pop(rank, ()))

    def forget_worker(self, worker: str, nodes: Set[str]) -> None:
        """Release the windows reserved for a lost worker. `nodes`: the machines that still have workers."""
        for waiting in self._events.values():
            waiting.unreserved.extend(waiting.reserved.pop(worker, ()))
            for queued in waiting.failed:
                if queued.failed_on >= nodes:
                    queued.failed_on = frozenset()  # no machine would be left to compute it

    def take(self, worker: str, node: str, busy: bool) -> QueuedWindow | None:
        """Return the next window for a worker; None if there is none for it.

        Order: windows that failed, windows with features on this worker, windows without features, windows with
        features on another worker. `busy`: the worker has another window. It then gets no window that was lost with
        a worker, because a second loss could not be attributed to one of the two.
        """
        queued = self._find(worker, node, busy) if self._length else None
        self._length -= queued is not None
        return queued

    def _find(self, worker: str, node: str, busy: bool) -> QueuedWindow | None:
        for waiting in self._events.values():
            for queued in waiting.failed:
                if node not in queued.failed_on and not (busy and queued.deaths):
                    waiting.failed.remove(queued)
                    return queued
        for waiting in self._events.values():
            if waiting.reserved.get(worker):
                return waiting.reserved[worker].popleft()
        for waiting in self._events.values():
            if waiting.unreserved:
                return waiting.unreserved.popleft()
        for waiting in self._events.values():
            longest = max(waiting.reserved.values(), key=len, default=())
            if longest:
                return longest.pop()  # the one that its owner would compute last
        return None


# --- Events and workers ----------------------------------------------------------------------------------------------
@dataclass(eq=False)
class _Event:
    """An event in progress."""

    event: Event
    rank: int  # events are begun in this order
    stages: Sequence[StageRequest]  # all requested stages
    locks: ExitStack = field(default_factory=ExitStack)  # of its output folders
    reasons: list[str | None] = field(default_factory=list)  # why stages were skipped, None for computed ones
    step: StageProgress | None = None  # None while a step runs
    key: int = 0  # of the opened stage; 0: none yet
    left: int = 0  # unfinished windows of the stage
    owners: dict[Window, str] = field(default_factory=dict)  # by window: the worker that computed it


@dataclass(eq=False)
class _Worker:
    """A worker that is ready."""

    name: str
    node: str  # of its machine
    windows: dict[int, QueuedWindow] = field(default_factory=dict)  # by ticket

    @property
    def has_suspect(self) -> bool:
        """Whether it computes a window that was lost with a worker, which it does alone."""
        return any(queued.deaths for queued in self.windows.values())


class Dispatcher:
    """Runs the stages of events on the workers of a pool."""

    def __init__(
        self,
        pool: Pool,
        events: Iterable[Event],
        plan: StagePlan,
        progress: Progress,
        work: WindowWork = EQUAL_WORK,
    ) -> None:
        """`events`: in the order in which they are begun. `work`: as `progress` counts it."""
        self._work = work
        self._pool = pool
        self._plan = plan
        self._progress = progress
        self._to_begin = deque(events)
        self._active: dict[int, _Event] = {}  # by rank
        self._ranks = 0  # given so far
        self._keys = 0  # given so far
        self._queue = WindowQueue()
        self._workers: dict[str, _Worker] = {}  # by name
        self._worker_of: dict[int, _Worker] = {}  # by ticket
        self._steps: dict[int, _Event] = {}  # by ticket

    def run(self) -> None:
        """Run until every event is done, skipped or failed. Raises UsageError if the run is impossible as requested."""
        try:
            while self._to_begin or self._active:
                self._begin_events()
                self._hand_out()
                if self._active:
                    for message in self._pool.wait():
                        self._handle(message)
        finally:
            for state in list(self._active.values()):
                self._close(state)

    # Decisions.
    def _begin_events(self) -> None:
        """Begin events until there are enough windows to keep all workers busy."""
        workers = max(len(self._workers), 1)
        # Windows of a second stage do not count: they follow only after the maps of the first are written.
        coming = sum(self._windows_to_come(state) for state in self._steps.values() if not state.key)
        while (
            self._to_begin
            and len(self._active) < self._pool.most_events
            and len(self._steps) <= STEPS * workers
            and len(self._queue) + coming < 2 * self._pool.depth * workers
        ):
            event = self._to_begin.popleft()
            self._progress.begin(event)
            try:
                state = _Event(event, self._ranks, self._plan(event))
                state.locks.enter_context(event_locks(state.stages))
            except UsageError:
                raise
            except Exception as error:
                self._progress.stopped(event, error)
            else:
                self._ranks += 1
                self._active[state.rank] = state
                coming += self._windows_to_come(state)
                self._take_step(state, None, state.stages)

    def _windows_to_come(self, state: _Event) -> int:
        """Return the approximate number of windows of an event's first stage."""
        return self._progress.units_left(state.event) // max(len(state.stages), 1)

    def _take_step(self, state: _Event, finished: Stage | None, stages: Sequence[StageRequest]) -> None:
        state.step = None
        self._steps[self._pool.advance(finished, stages)] = state

    def _hand_out(self) -> None:
        """Give windows to idle workers first, then to busy ones if more windows wait than other workers could take.

        While a window that was lost with a worker is waiting, busy workers get none, so that one becomes idle for it.
        """
        others = len(self._workers) if len(self._workers) > 1 else 0
        for number in range(self._pool.depth):
            if len(self._queue) <= (others if number else 0) or (number and self._queue.holds_suspects):
                return
            for worker in self._workers.values():
                if len(worker.windows) == number and not worker.has_suspect:
                    queued = self._queue.take(worker.name, worker.node, number > 0)
                    if queued is not None:
                        self._send(queued, worker)

    def _send(self, queued: QueuedWindow, worker: _Worker) -> None:
        state = self._active[queued.rank]
        assert state.step is not None
        assert state.step.stage is not None
        keep_features = len(state.stages) > 1
        ticket = self._pool.compute(worker.name, state.key, state.step.stage, queued.window, keep_features)
        worker.windows[ticket] = queued
        self._worker_of[ticket] = worker

    # Handling of messages.
    def _handle(self, message: WorkerReady | WorkerLost | Answer) -> None:
        if isinstance(message, WorkerReady):
            self._workers[message.worker] = _Worker(message.worker, message.node)
        elif isinstance(message, WorkerLost):
            self._lose(message.worker, message.reason)
        elif message.ticket in self._steps:
            self._step_taken(self._steps.pop(message.ticket), message)
        elif message.ticket in self._worker_of:
            self._computed(self._worker_of[message.ticket], message.ticket, message.failure)

    def _step_taken(self, state: _Event, answer: Answer) -> None:
        if answer.failure is not None:
            self._fail(state, answer.failure)
            return
        step: StageProgress = answer.value
        state.reasons += step.reasons
        if step.stage is None:
            self._close(state)
            self._progress.done(state.event, join_reasons(state.reasons))
            return
        self._progress.units_found(state.event, step.finished, self._work.kind(step.stage.request))
        self._keys += 1
        state.step, state.key, state.left = step, self._keys, len(step.missing)
        # A single worker computes the windows in the order in which they are ready.
        self._queue.add(state.rank, step.missing, state.owners if len(self._workers) > 1 else {})
        state.owners = {}

    def _computed(self, worker: _Worker, ticket: int, failure: Failure | None) -> None:
        if failure is not None and failure.ends_worker:
            self._pool.retire(worker.name)
            self._lose(worker.name, failure.message, failure.trace)
            return
        del self._worker_of[ticket]
        queued = worker.windows.pop(ticket)
        state = self._active.get(queued.rank)
        if state is None:
            return  # its event has failed
        if failure is not None:
            self._try_elsewhere(state, queued, worker.node, failure)
        else:
            state.owners[queued.window] = worker.name
            state.left -= 1
            assert state.step is not None
            assert state.step.stage is not None
            self._progress.units_done(state.event, 1, self._work.kind(state.step.stage.request))
            if not state.left:
                self._write_maps(state)

    def _write_maps(self, state: _Event) -> None:
        assert state.step is not None
        self._queue.drop(state.rank)
        self._pool.forget(state.key, not state.step.rest)
        self._take_step(state, state.step.stage, state.step.rest)

    def _try_elsewhere(self, state: _Event, queued: QueuedWindow, node: str, failure: Failure) -> None:
        """Put a window back for another machine, which may have the file that this one lacks; else fail its event."""
        queued.failed_on |= {node}
        queued.errors += 1
        if queued.errors < MOST_ERRORS and self._nodes() - queued.failed_on:
            self._queue.put_back(queued)
        else:
            self._fail(state, failure)

    def _nodes(self) -> set[str]:
        return {worker.node for worker in self._workers.values()}

    def _lose(self, name: str, reason: str, trace: str = "") -> None:
        """Put back the windows of a lost worker; an event fails if MOST_DEATHS workers were lost with one window."""
        worker = self._workers.pop(name, None)
        if worker is None:
            return
        for ticket, queued in worker.windows.items():
            self._worker_of.pop(ticket, None)
            state = self._active.get(queued.rank)
            if state is None:
                continue
            queued.deaths += 1
            if queued.deaths < MOST_DEATHS:
                self._queue.put_back(queued)
            else:
                x, y, width, height = queued.window
                lost = (
                    f"{queued.deaths} workers were lost with its window of {width} x {height} at ({x}, {y}): {reason}"
                )
                self._fail(state, Failure(lost, trace or reason))
        # Last, because windows that were just put back may also have failed on all remaining machines.
        self._queue.forget_worker(name, self._nodes())

    def _fail(self, state: _Event, failure: Failure) -> None:
        self._close(state)
        self._progress.failed(state.event, failure.to_error())

    def _close(self, state: _Event) -> None:
        """Release the windows, the stage and the locks of an event, finished or not."""
        self._active.pop(state.rank)
        self._queue.drop(state.rank)
        # If nothing can be removed, for example because a folder was deleted, the other events continue.
        with suppress(OSError), state.locks:
            if state.step is not None and state.step.stage is not None:
                self._pool.forget(state.key, True)
                state.step.stage.store().remove_if_empty()
