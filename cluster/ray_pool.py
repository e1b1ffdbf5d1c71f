"""Runs workers and steps on a Ray cluster: the pool that the dispatcher uses."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import config
from cluster.connection import PATIENCE_SECONDS, machines
from cluster.environment import environment
from cluster.ray_worker import RayWorker
from cluster.remote_calls import Outcome, call_function, relay
from cluster.resources import WorkerResources
from pipeline.dispatch import Answer, Failure, WorkerLost, WorkerReady
from pipeline.stage import Stage, StageRequest, advance
from sam.settings import EngineSettings
from utils import LOG, UsageError, Window, differing_keys, warn_once

LOOK_SECONDS = 5  # between two checks for room for more workers
MOST_FAILED_STARTS = 3  # of workers, in succession
RETRY_SECONDS = 60  # pause after these, if other workers are running
STEP_RETRIES = 2  # of a step whose process or machine died
# Prefixes of environment variables that affect maps or speed; workers get those of this process.
FORWARDED = ("ANOMALYCD_", "OMP_", "MKL_", "MALLOC_", "GDAL_")
_LOST = "lost"  # value of an outcome whose worker is lost


class RayPool:
    """Runs workers as Ray actors and steps as Ray tasks; see dispatch.Pool."""

    depth = 2  # one window is computed while the next is read
    most_events = sys.maxsize

    def __init__(
        self,
        ray: ModuleType,
        resources: WorkerResources,
        settings: EngineSettings,
        shared: Sequence[Path],
        check: Callable[[], None],
    ) -> None:
        """`shared`: paths that must exist on all machines. `check`: called between waits."""
        self._check = check
        self._ray = ray
        self._resources = resources
        self._settings = settings
        self._shared = shared
        variables = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
        path = os.pathsep.join(filter(None, [str(config.PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
        variables = {"OMP_NUM_THREADS": str(resources.cpus)} | variables | {"PYTHONPATH": path}
        self._actor = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_concurrency=self.depth + 1,  # a thread per window, and one for the window that is being written
            runtime_env={"env_vars": variables},
        )(RayWorker)
        self._step = ray.remote(
            num_cpus=0,  # steps need little CPU time and must not wait for workers to end
            max_retries=STEP_RETRIES,
            runtime_env={"env_vars": variables},
        )(call_function)
        self._workers: dict[str, Any] = {}  # actors that are ready
        self._nodes: dict[str, str] = {}  # machines of these workers
        self._starting: dict[Any, tuple[str, Any]] = {}  # by reference: name and actor
        self._calls: dict[Any, tuple[int, str | None]] = {}  # by reference: ticket and worker
        self._prepared: dict[int, Any] = {}  # opened stages as Ray's references, by key
        self._tickets = 0
        self._started = 0
        self._failed_starts = 0
        self._looked = float("-inf")
        self._last_seen = time.monotonic()  # when a worker was last ready
        self._environment = environment()

    def new_worker(self) -> Any:
        """Create an actor, which is not ready yet on return."""
        return self._actor.remote()

    def end_worker(self, actor: Any) -> None:
        """End an actor's process."""
        self._ray.kill(actor)

    def send_step(self, node: str | None, finished: Stage | None, stages: Sequence[StageRequest]) -> Any:
        """Start a step on a machine, None: on any; returns the reference to its Outcome."""
        strategy: Any = "DEFAULT"
        if node is not None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        step = self._step.options(scheduling_strategy=strategy)
        return step.remote(advance, finished, list(stages), self._settings.identity)

    def compute(self, worker: str, key: int, prepared: Stage, window: Window, keep_features: bool) -> int:
        """Send a window to a worker; returns the ticket of its answer."""
        if key not in self._prepared:
            self._prepared[key] = self._ray.put(prepared)
        call_of_worker = self._workers[worker].compute.remote(key, [self._prepared[key]], window, keep_features)
        return self._remember(call_of_worker, worker)

    def advance(self, finished: Stage | None, stages: Sequence[StageRequest]) -> int:
        """Start a step; returns its ticket. Uses the machines with workers in turn, as others may lack the files."""
        nodes = sorted(set(self._nodes.values()))
        node = nodes[self._tickets % len(nodes)] if nodes else None
        return self._remember(self.send_step(node, finished, stages), None)

    def _remember(self, reference: Any, worker: str | None) -> int:
        self._tickets += 1
        self._calls[reference] = (self._tickets, worker)
        return self._tickets

    def forget(self, key: int, is_last: bool) -> None:
        """Release an opened stage; workers keep what they used last."""
        self._prepared.pop(key, None)

    def retire(self, worker: str) -> None:
        """End a worker, which may have ended already."""
        if worker in self._workers:
            self.end_worker(self._workers[worker])
            self._drop(worker)

    def close(self) -> None:
        """End all workers."""
        for actor in [*self._workers.values(), *(actor for _, actor in self._starting.values())]:
            self.end_worker(actor)

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        """Wait for up to a second, and return the new messages; see dispatch.Pool."""
        self._check()
        self._start_workers()
        references = [*self._starting, *self._calls]
        if not references:
            time.sleep(1)  # until machines join
            return []
        ready, _ = self._ray.wait(references, timeout=1)
        if ready:
            ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        messages: list[WorkerReady | WorkerLost | Answer] = []
        for reference in ready:
            if reference in self._starting:
                messages += self._register_worker(reference)
            elif reference in self._calls:  # else its worker was lost earlier
                messages.append(self._answer(reference))
        return messages

    # Starting workers.
    def _start_workers(self) -> None:
        now = time.monotonic()
        if self._workers:
            self._last_seen = now
        elif self._failed_starts >= MOST_FAILED_STARTS and not self._starting:
            raise UsageError(f"no worker can be started: {self._start_error}")
        elif now - self._last_seen > PATIENCE_SECONDS:
            raise UsageError(
                f"no worker for {PATIENCE_SECONDS} s: the cluster has no room for one with {self._resources}"
            )
        if now - self._looked < (LOOK_SECONDS if self._failed_starts < MOST_FAILED_STARTS else RETRY_SECONDS):
            return
        self._looked = now
        for _ in range(self._resources.room(machines(self._ray)) - len(self._workers) - len(self._starting)):
            self._started += 1
            actor = self.new_worker()
            self._starting[actor.start.remote(self._settings, self._shared)] = (f"worker {self._started}", actor)

    def _register_worker(self, reference: Any) -> list[WorkerReady | WorkerLost | Answer]:
        name, actor = self._starting.pop(reference)
        outcome = self._get(reference)
        failure, info = outcome.failure, outcome.value
        if failure is None:
            differing = differing_keys(info.environment, self._environment)
            if not differing:
                LOG.debug("%s is ready on %s: %s", name, info.host, info.device)
                self._failed_starts = 0
                self._workers[name], self._nodes[name] = actor, info.node
                return [WorkerReady(name, info.node)]
            other = (
                f"{info.host} has a different {', '.join(differing)} than this machine; "
                "its windows would be inconsistent"
            )
            failure = Failure(other, "")
        self.end_worker(actor)
        self._failed_starts += 1
        self._start_error = failure.message
        warn_once(f"a worker cannot be used: {failure.message}")
        LOG.debug("%s: %s", name, failure.trace)
        return []

    # Reading answers.
    def _answer(self, reference: Any) -> WorkerReady | WorkerLost | Answer:
        ticket, worker = self._calls.pop(reference)
        outcome = self._get(reference)
        if outcome.value is _LOST and worker is not None:
            reason = outcome.failure.message if outcome.failure else ""
            LOG.warning("%s is lost: %s", worker, reason)
            self._drop(worker)
            return WorkerLost(worker, reason)
        relay(outcome.lines)
        return Answer(ticket, outcome.value, outcome.failure)

    def _get(self, reference: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayActorError as error:
            return Outcome(_LOST, Failure(_short(error), str(error), ends_worker=True))
        except errors.RayError as error:
            return Outcome(None, Failure(_short(error), str(error), ends_worker=True))

    def _drop(self, worker: str) -> None:
        self._looked = float("-inf")  # check at once: there is room for another worker
        del self._workers[worker], self._nodes[worker]
        for reference in [reference for reference, (_, owner) in self._calls.items() if owner == worker]:
            del self._calls[reference]


def _short(error: Exception) -> str:
    """Return the first non-empty line of a Ray error, which has many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
