"""Decides what the workers of a cluster do next, and what becomes of an event whose window, worker or step fails."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cli.progress import Progress
from cluster.remote_calls import Failure, Outcome, relay
from pipeline.stage import Stage, StageProgress, StageRequest, event_locks, join_reasons
from utils import Event, EventBusyError, Listing, Window

MOST_DEATHS = 3  # of workers that had the same window: then it is taken to kill them
MOST_ERRORS = 3  # that a window may meet, each on another machine
DEPTH = 2  # windows a worker has: one is computed, the next one is read
STEPS = 2  # for each worker, at once: they are processes, but fewer could not put together what a fast GPU computes


# --- What a pool of workers gives ------------------------------------------------------------------------------------
class WorkerReady(NamedTuple):
    """A worker that is ready."""

    worker: str
    node: str


class WorkerLost(NamedTuple):
    """A worker that is gone, with all that it had; none of its answers comes any more."""

    worker: str
    reason: str


class Answer(NamedTuple):
    """What a call gave that was sent to a worker or to the cluster."""

    ticket: int
    outcome: Outcome


class Pool(Protocol):
    """Workers in other processes, and other processes that take the steps between windows."""

    def compute(self, worker: str, key: int, prepared: Stage, window: Window, keep_features: bool) -> int:
        """Send a window to a worker: see window_worker. Returns the ticket of its answer."""

    def advance(self, finished: Stage | None, stages: Sequence[StageRequest]) -> int:
        """Have an event's next step taken: see pipeline.stage. Its answer is a StageProgress."""

    def forget(self, key: int) -> None:
        """No window of these prepared stages comes any more."""

    def retire(self, worker: str) -> None:
        """End a worker, which may be gone already; its WorkerLost does not come any more."""

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        """What happened since the last call; waits for something, but not for ever. Raises UsageError where there is
        no worker and none can be started.
        """


# --- Which window comes next -----------------------------------------------------------------------------------------
@dataclass(eq=False, slots=True)
class QueuedWindow:
    """A window that is to be computed."""

    rank: int  # of its event: the lowest comes first
    window: Window
    deaths: int = 0  # of workers that had it
    errors: int = 0
    failed_on: frozenset[str] = frozenset()  # nodes where it met an error


@dataclass
class _Waiting:
    """The windows of an event that no worker has."""

    again: list[QueuedWindow] = field(default_factory=list)  # that have failed before
    free: deque[QueuedWindow] = field(default_factory=deque)
    of_worker: dict[str, deque[QueuedWindow]] = field(default_factory=dict)  # which keeps their features

    def __len__(self) -> int:
        return len(self.again) + len(self.free) + sum(map(len, self.of_worker.values()))


class WindowQueue:
    """The windows that wait for a worker, those of the largest event first."""

    def __init__(self) -> None:
        self._events: dict[int, _Waiting] = {}  # by rank, in ascending order
        self._length = 0  # kept, since it is asked for at every turn

    def __len__(self) -> int:
        """How many windows wait."""
        return self._length

    @property
    def has_suspects(self) -> bool:
        """Whether a window waits that a worker was lost with."""
        return any(unit.deaths for waiting in self._events.values() for unit in waiting.again)

    def add(self, rank: int, windows: Iterable[Window], owners: dict[Window, str]) -> None:
        """Add an event's windows. `owners`: which worker keeps whose features."""
        waiting = _Waiting()
        for window in windows:
            owner = owners.get(window)
            place = waiting.free if owner is None else waiting.of_worker.setdefault(owner, deque())
            place.append(QueuedWindow(rank, window))
        self._length += len(waiting)
        self._events[rank] = waiting
        self._events = dict(sorted(self._events.items()))

    def put_back(self, unit: QueuedWindow) -> None:
        """Add a window that failed."""
        self._events[unit.rank].again.append(unit)
        self._length += 1

    def drop(self, rank: int) -> None:
        """Forget an event."""
        self._length -= len(self._events.pop(rank, ()))

    def forget_worker(self, worker: str, nodes: Set[str]) -> None:
        """What a worker kept is lost. `nodes`: where there still are workers."""
        for waiting in self._events.values():
            waiting.free.extend(waiting.of_worker.pop(worker, ()))
            for unit in waiting.again:
                if unit.failed_on >= nodes:
                    unit.failed_on = frozenset()  # nobody would be left to take it

    def take(self, worker: str, node: str, busy: bool) -> QueuedWindow | None:
        """The next window for a worker; None where there is none for it.

        First those whose features it keeps, then those that nobody has begun, then those whose features another worker
        keeps. `busy`: the worker has a window already, so that one that killed a worker has to wait: else both
        would be suspected.
        """
        unit = self._find(worker, node, busy) if self._length else None
        self._length -= unit is not None
        return unit

    def _find(self, worker: str, node: str, busy: bool) -> QueuedWindow | None:
        for waiting in self._events.values():
            for unit in waiting.again:
                if node not in unit.failed_on and not (busy and unit.deaths):
                    waiting.again.remove(unit)
                    return unit
        for waiting in self._events.values():
            if waiting.of_worker.get(worker):
                return waiting.of_worker[worker].popleft()
        for waiting in self._events.values():
            if waiting.free:
                return waiting.free.popleft()
        for waiting in self._events.values():
            longest = max(waiting.of_worker.values(), key=len, default=())
            if longest:
                return longest.pop()  # which its owner would come to last
        return None


# --- Events and workers ----------------------------------------------------------------------------------------------
@dataclass(eq=False)
class _Event:
    event: Event
    rank: int
    stages: Sequence[StageRequest]
    locks: ExitStack = field(default_factory=ExitStack)
    reasons: list[str | None] = field(default_factory=list)
    step: StageProgress | None = None  # None while one is being taken
    key: int = 0  # of the prepared stage; 0: none has been
    left: int = 0  # windows that are not finished
    owners: dict[Window, str] = field(default_factory=dict)


@dataclass(eq=False)
class _Worker:
    name: str
    node: str
    units: dict[int, QueuedWindow] = field(default_factory=dict)  # by ticket

    @property
    def room(self) -> int:
        """How many more windows it may be given."""
        alone = any(unit.deaths for unit in self.units.values())
        return 0 if alone else DEPTH - len(self.units)


class Dispatcher:
    """Takes the events of a listing through their stages, on the workers of a pool."""

    def __init__(
        self, pool: Pool, listing: Listing, plan: Callable[[Event], Sequence[StageRequest]], progress: Progress
    ) -> None:
        self._pool = pool
        self._plan = plan
        self._progress = progress
        self._to_begin = deque(sorted(listing.events, key=progress.windows_left, reverse=True))
        self._active: dict[int, _Event] = {}  # by rank
        self._ranks = 0
        self._keys = 0
        self._queue = WindowQueue()
        self._workers: dict[str, _Worker] = {}
        self._worker_of: dict[int, _Worker] = {}  # by ticket
        self._steps: dict[int, _Event] = {}  # by ticket

    def run(self) -> None:
        """Work until every event is done, skipped or failed."""
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

    # What is done next.
    def _begin_events(self) -> None:
        """Begin events until there are windows enough to keep all workers busy."""
        workers = max(len(self._workers), 1)
        # Of an event that has windows already, the next ones come only when these are put together: that can take long.
        coming = sum(self._windows_to_come(state) for state in self._steps.values() if not state.key)
        while (
            self._to_begin and len(self._steps) <= STEPS * workers and len(self._queue) + coming < 2 * DEPTH * workers
        ):
            event = self._to_begin.popleft()
            self._progress.begin(event)
            state = _Event(event, self._ranks, self._plan(event))
            self._ranks += 1
            try:
                state.locks.enter_context(event_locks(state.stages))
            except EventBusyError as error:
                self._progress.done(event, str(error))
            except OSError as error:
                self._progress.failed(event, error)
            else:
                self._active[state.rank] = state
                coming += self._windows_to_come(state)
                self._take_step(state, None, state.stages)

    def _windows_to_come(self, state: _Event) -> int:
        """About how many windows the first stage of an event has."""
        return self._progress.windows_left(state.event) // max(len(state.stages), 1)

    def _take_step(self, state: _Event, finished: Stage | None, stages: Sequence[StageRequest]) -> None:
        state.step = None
        self._steps[self._pool.advance(finished, stages)] = state

    def _hand_out(self) -> None:
        """Give windows to idle workers first, then to busy ones, unless these would only keep them from idle ones.

        While a window waits that killed a worker, none is given to busy ones, so that one becomes idle for it.
        """
        for units in range(DEPTH):
            if len(self._queue) <= (len(self._workers) if units else 0) or (units and self._queue.has_suspects):
                return
            for worker in self._workers.values():
                if len(worker.units) == units and worker.room:
                    unit = self._queue.take(worker.name, worker.node, units > 0)
                    if unit is not None:
                        self._send(unit, worker)

    def _send(self, unit: QueuedWindow, worker: _Worker) -> None:
        state = self._active[unit.rank]
        assert state.step is not None
        assert state.step.stage is not None
        keep_features = len(state.stages) > 1
        ticket = self._pool.compute(worker.name, state.key, state.step.stage, unit.window, keep_features)
        worker.units[ticket] = unit
        self._worker_of[ticket] = worker

    # What has happened.
    def _handle(self, message: WorkerReady | WorkerLost | Answer) -> None:
        if isinstance(message, WorkerReady):
            self._workers[message.worker] = _Worker(message.worker, message.node)
        elif isinstance(message, WorkerLost):
            self._lose(message.worker, message.reason)
        elif message.ticket in self._steps:
            self._step_taken(self._steps.pop(message.ticket), message.outcome)
        elif message.ticket in self._worker_of:
            self._computed(self._worker_of[message.ticket], message.ticket, message.outcome)

    def _step_taken(self, state: _Event, outcome: Outcome) -> None:
        relay(outcome.lines)
        if outcome.failure is not None:
            self._fail(state, outcome.failure)
            return
        step: StageProgress = outcome.value
        state.reasons += step.reasons
        if step.stage is None:
            self._close(state)
            self._progress.done(state.event, join_reasons(state.reasons))
            return
        self._progress.window_done(state.event, step.finished)
        self._keys += 1
        state.step, state.key, state.left = step, self._keys, len(step.missing)
        self._queue.add(state.rank, step.missing, state.owners)
        state.owners = {}

    def _computed(self, worker: _Worker, ticket: int, outcome: Outcome) -> None:
        relay(outcome.lines)
        failure = outcome.failure
        if failure is not None and not failure.expected:
            # Whatever it was, its cause may still be in the process, as an error of the GPU is.
            self._pool.retire(worker.name)
            self._lose(worker.name, failure.message, failure.trace)
            return
        del self._worker_of[ticket]
        unit = worker.units.pop(ticket)
        state = self._active.get(unit.rank)
        if state is None:
            return  # its event has failed meanwhile
        if failure is not None:
            self._try_elsewhere(state, unit, worker.node, failure)
        else:
            state.owners[unit.window] = worker.name
            state.left -= 1
            self._progress.window_done(state.event)
            if not state.left:
                self._put_together(state)

    def _put_together(self, state: _Event) -> None:
        assert state.step is not None
        self._queue.drop(state.rank)
        self._pool.forget(state.key)
        self._take_step(state, state.step.stage, state.step.rest)

    def _try_elsewhere(self, state: _Event, unit: QueuedWindow, node: str, failure: Failure) -> None:
        """Give a window to another machine, which may see the file that this one does not; there may be none."""
        unit.failed_on |= {node}
        unit.errors += 1
        if unit.errors < MOST_ERRORS and self._nodes() - unit.failed_on:
            self._queue.put_back(unit)
        else:
            self._fail(state, failure)

    def _nodes(self) -> set[str]:
        return {worker.node for worker in self._workers.values()}

    def _lose(self, name: str, reason: str, trace: str = "") -> None:
        """Give the windows of a worker that is gone to others, but for those that too many workers were lost with."""
        worker = self._workers.pop(name, None)
        if worker is None:
            return
        for ticket, unit in worker.units.items():
            self._worker_of.pop(ticket, None)
            state = self._active.get(unit.rank)
            if state is None:
                continue
            unit.deaths += 1
            if unit.deaths < MOST_DEATHS:
                self._queue.put_back(unit)
            else:
                x, y, width, height = unit.window
                lost = f"{unit.deaths} workers were lost with its window of {width} x {height} at ({x}, {y}): {reason}"
                self._fail(state, Failure(lost, trace or reason, False))
        # Last: of the windows that have just been put back, too, one may wait for a node that has no worker any more.
        self._queue.forget_worker(name, self._nodes())

    def _fail(self, state: _Event, failure: Failure) -> None:
        self._close(state)
        self._progress.failed(state.event, failure.to_error())

    def _close(self, state: _Event) -> None:
        """End the work on an event, finished or not."""
        self._active.pop(state.rank)
        self._queue.drop(state.rank)
        # Where nothing can be tidied up, as in a folder that was removed, the other events go on all the same.
        with suppress(OSError), state.locks:
            if state.step is not None and state.step.stage is not None:
                self._pool.forget(state.key)
                state.step.stage.store().remove_if_empty()
