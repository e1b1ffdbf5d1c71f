"""A pool whose workers compute in the test's process, without Ray."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType

import torch

import run
from cli.progress import Summary, follow_run
from cluster.remote_calls import Outcome, call, call_function, relay
from pipeline.dispatch import Answer, Dispatcher, WorkerLost, WorkerReady
from pipeline.stage import Stage, StageRequest, advance, count_windows
from pipeline.window_worker import WindowWorker
from sam.flags import SamFlags
from sam.settings import EngineSettings, engine_settings
from utils import Event, Window, list_events


class InProcessPool:
    """Two workers on one engine; a retired worker is replaced. See dispatch.Pool."""

    depth = 2
    most_events = 100

    def __init__(self, settings: EngineSettings) -> None:
        self._engine = settings.load()
        self._identity = settings.identity
        self._workers: dict[str, WindowWorker] = {}
        self._started = 0
        self._calls: dict[int, tuple[str | None, partial[Outcome]]] = {}  # by ticket: worker and call
        self._tickets = 0

    def compute(self, worker: str, key: int, prepared: Stage, window: Window, keep_features: bool) -> int:
        def compute() -> None:
            self._workers[worker].submit(key, lambda: prepared, window, keep_features).result()

        return self._remember(worker, partial(call, compute))

    def advance(self, finished: Stage | None, stages: Sequence[StageRequest]) -> int:
        return self._remember(None, partial(call_function, advance, finished, list(stages), self._identity))

    def _remember(self, worker: str | None, call: partial[Outcome]) -> int:
        self._tickets += 1
        self._calls[self._tickets] = worker, call
        return self._tickets

    def forget(self, key: int, is_last: bool) -> None:
        """Do nothing: the pool keeps no stages."""

    def retire(self, worker: str) -> None:
        del self._workers[worker]
        self._calls = {ticket: one for ticket, one in self._calls.items() if one[0] != worker}

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        if len(self._workers) < 2:
            self._started += 1
            name = f"worker {self._started}"
            self._workers[name] = WindowWorker(lambda: self._engine, ThreadPoolExecutor(1))
            return [WorkerReady(name, "this machine")]
        ticket = min(self._calls)
        _, call = self._calls.pop(ticket)
        outcome = call()
        relay(outcome.lines)
        return [Answer(ticket, outcome.value, outcome.failure)]


def run_in_process(arguments: Sequence[str], script: ModuleType = run) -> Summary:
    """Run `script --ray` with these arguments on an InProcessPool."""
    args = script.parse_arguments(list(arguments))
    pool = InProcessPool(engine_settings(SamFlags.of(args), torch.device("cpu")))

    def plan(event: Event) -> list[StageRequest]:
        return script.plan(event, args)

    listing = list_events(Path(args.data_root))
    with follow_run("both stages", listing, count_windows(plan)) as progress:
        Dispatcher(pool, listing.events, plan, progress).run()
    return progress.summary
