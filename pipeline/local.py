"""The pool of this process: its threads read and store windows and take steps; the calling thread is the device."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import cache, partial
from queue import SimpleQueue
from typing import Any, TypeVar

from cli.progress import Progress, Summary, follow_run
from pipeline.dispatch import Answer, Dispatcher, Failure, WorkerLost, WorkerReady
from pipeline.stage import EQUAL_WORK, Stage, StagePlan, StageRequest, WindowWork, advance, count_windows
from pipeline.window_worker import WindowWorker
from sam.engine import SamEngine
from sam.settings import EngineSettings
from sam.weights import OTHER_FILE, SamIdentity
from utils import Listing, UsageError, Window

T = TypeVar("T")


def run_here(name: str, listing: Listing, plan: StagePlan, settings: EngineSettings) -> Summary:
    """Run the stages of every event; returns their outcomes. `name`: name of the run, for its summary.

    The SAM is loaded for the first missing window.
    """
    with ExitStack() as stack:
        work = WindowWork.of(settings.model_type)
        bar: list[Progress] = []  # for the engine, which may be loaded before the bar is drawn

        def points_done(count: int) -> None:
            bar[0].work_in_hand(count)

        load_engine = cache(lambda: stack.enter_context(settings.load(points_done)))
        if settings.weights.origin == OTHER_FILE:
            load_engine()  # weights that cannot be used are named before any event is opened
        with follow_run(name, listing, count_windows(plan, work)) as progress:
            bar.append(progress)
            run_events_here(listing, plan, settings.identity, load_engine, progress, work)
    return progress.summary


def run_events_here(
    listing: Listing,
    plan: StagePlan,
    sam: SamIdentity,
    load_engine: Callable[[], SamEngine],
    progress: Progress,
    work: WindowWork = EQUAL_WORK,
) -> None:
    """Run the stages of every event, in order. Raises UsageError if the run is impossible as requested.

    An interrupted run ends after the step and the windows that other threads are working on.
    """
    device = CallingThread()
    pool = LocalPool(sam, load_engine, device)
    dispatcher = Dispatcher(pool, listing.events, plan, progress, work)
    with closing(pool), ThreadPoolExecutor(1, "dispatch") as thread:
        dispatching = thread.submit(dispatcher.run)
        try:
            device.work_until(dispatching)
        except BaseException as error:
            pool.stop(error)
            device.cancel_until(dispatching)
            raise
        dispatching.result()


class CallingThread(Executor):
    """An executor whose work is done by the thread that calls `work_until`: signals interrupt it at once."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        """Have a function called; returns its result's future."""
        future: Future[T] = Future()
        self._work.put((future, partial(function, *arguments, **named)))
        return future

    def work_until(self, end: Future[Any]) -> None:
        """Do all work, until `end` is done. Raises what is no Exception, such as an interrupt."""
        end.add_done_callback(lambda _: self._work.put(None))
        while (work := self._work.get()) is not None:
            future, call = work
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise

    def cancel_until(self, end: Future[Any]) -> None:
        """Cancel all work, until `end` is done; `work_until` was called with it before."""
        while (work := self._work.get()) is not None:
            work[0].cancel()


class LocalPool:
    """A single worker, which reads a window while one is on the device and another one is stored; see dispatch.Pool.

    Its methods, `stop` excepted, are called on one thread.
    """

    depth = 3
    most_events = 2  # the windows of one are computed, while the other one is opened or its maps are written

    def __init__(self, sam: SamIdentity, load_engine: Callable[[], SamEngine], device: Executor) -> None:
        self._sam = sam
        self._worker = WindowWorker(load_engine, device)
        self._steps = ThreadPoolExecutor(1, "step")
        self._stages: dict[int, Stage] = {}  # by key
        self._tickets = 0
        self._messages: SimpleQueue[WorkerReady | Answer | BaseException] = SimpleQueue()
        self._messages.put(WorkerReady("this process", "this machine"))

    def compute(self, worker: str, key: int, prepared: Stage, window: Window, keep_features: bool) -> int:
        """Compute a window; returns the ticket of its answer."""
        self._stages[key] = prepared
        return self._expect(self._worker.submit(key, lambda: self._stages[key], window, keep_features))

    def advance(self, finished: Stage | None, stages: Sequence[StageRequest]) -> int:
        """Start a step; returns its ticket."""
        return self._expect(self._steps.submit(advance, finished, stages, self._sam))

    def _expect(self, call: Future[Any]) -> int:
        self._tickets += 1
        call.add_done_callback(partial(self._answer, self._tickets))
        return self._tickets

    def _answer(self, ticket: int, call: Future[Any]) -> None:
        """Put the answer to a call among the messages, or an error that ends the run."""
        if call.cancelled():
            return  # the run has ended
        error = call.exception()
        if error is None:
            self._messages.put(Answer(ticket, call.result()))
        elif isinstance(error, Exception) and not isinstance(error, UsageError):
            self._messages.put(Answer(ticket, failure=Failure.of(error)))
        else:
            self._messages.put(error)

    def forget(self, key: int, is_last: bool) -> None:
        """Close a stage. `is_last`: also drop the event's features. Its waiting windows are not read any more."""
        self._stages.pop(key, None)
        self._worker.forget(key, is_last)

    def retire(self, worker: str) -> None:
        """Do nothing: the process goes on with the next event."""

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        """Wait for a message. Raises the error that ends the run, after the threads have ended."""
        message = self._messages.get()
        if isinstance(message, BaseException):
            self.close()
            raise message
        return [message]

    def stop(self, error: BaseException) -> None:
        """End the run with an error, from another thread."""
        self._messages.put(error)

    def close(self) -> None:
        """Wait for the windows and the step in hand, and start no other."""
        self._worker.close()
        self._steps.shutdown(cancel_futures=True)
