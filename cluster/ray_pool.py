"""Runs events on a Ray cluster. The only module that touches Ray, and only where `--ray` asks for it."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

import config
from cli.progress import follow_run
from cli.script import deferred_interrupts
from cluster.dispatch import DEPTH, Answer, Dispatcher, WorkerLost, WorkerReady
from cluster.environment import environment
from cluster.remote_calls import Failure, Outcome, call, call_function
from cluster.resources import WorkerResources, named_device, wants_cpu, worker_resources
from cluster.window_worker import WindowWorker
from pipeline.stage import Stage, StageRequest, advance
from sam.settings import EngineSettings, engine_settings
from sam.weights import sha256
from utils import LOG, Event, Listing, UsageError, Window, differing_keys, warn_once

CONNECT_SECONDS = 4  # that a machine may take to accept a connection
ANSWER_SECONDS = 9  # that a cluster may take to be joined
LOOK_SECONDS = 5  # between two looks at how many workers there is room for
PATIENCE_SECONDS = 600  # without any worker: an autoscaler may be at work
MOST_FAILED_STARTS = 3  # of workers, one after the other
RETRY_SECONDS = 60  # until more are tried after that, where others work
# Of a Ray that is started here. Processes wait for the next step: after Ray's one second most steps would start one
# anew, which takes longer than many windows.
LOCAL_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_idle_worker_killing_time_threshold_ms": "600000"}
STEP_RETRIES = 2  # of a step whose process or machine died
# Of the environment, what has a part in the maps or in the speed.
FORWARDED = ("ANOMALYCD_", "OMP_", "MKL_", "MALLOC_", "GDAL_")


# --- What runs in other processes ------------------------------------------------------------------------------------
class Welcome(NamedTuple):
    """What a worker says of itself."""

    host: str
    node: str  # Ray's name of the machine
    device: str
    environment: dict[str, Any]


class RayWorker:
    """One SAM on one device; becomes an actor of Ray."""

    def start(self, settings: EngineSettings, shared: Sequence[Path]) -> Outcome:
        """Load the engine; its value is a Welcome. `shared`: paths that all machines have to see."""
        return call(lambda: self._start(settings, shared))

    def _start(self, settings: EngineSettings, shared: Sequence[Path]) -> Welcome:
        import ray

        for path in (*shared, settings.weights.path):
            if not path.exists():
                raise UsageError(f"{path}: not there; it has to be on a file system that all machines share")
        if sha256(settings.weights.path) != settings.weights.sha256:
            raise UsageError(f"{settings.weights.path}: not the same file as where the run was started")
        self._worker = WindowWorker(settings.load())
        device = torch.cuda.get_device_name() if settings.device.type == "cuda" else "CPU"
        return Welcome(socket.gethostname(), ray.get_runtime_context().get_node_id(), device, environment())

    def compute(self, key: int, held: Sequence[Any], window: Window, keep_features: bool) -> Outcome:
        """See WindowWorker. `held`: the reference to the prepared stage; in a list, else Ray fetches it every time."""
        import ray

        return call(lambda: self._worker.compute(key, lambda: ray.get(held[0]), window, keep_features))


# --- The cluster -----------------------------------------------------------------------------------------------------
def machines(ray: ModuleType) -> list[dict[str, float]]:
    """The resources of the cluster's machines."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def machines_with_room(ray: ModuleType, args: argparse.Namespace, check: Callable[[], None]) -> list[dict[str, float]]:
    """The resources of the machines, once one of them can have a worker: those of an allocation join one by one.

    `check`: is called between looks. After a while it is as it is.
    """
    needed = "GPU" if named_device(args) in ("cuda", "cuda:0") else "CPU"
    for waited in range(PATIENCE_SECONDS):
        found = machines(ray)
        if args.ray == "local" or any(node.get(needed, 0) >= 1 for node in found):
            break
        if not waited:
            LOG.info("waiting for a machine with a %s to join the cluster", needed)
        check()
        time.sleep(1)
    return found


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--ray needs the package ray ({error}): pip install -r requirements-ray.txt") from None
    return ray


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[ModuleType]:
    """Start Ray on this machine, or join a cluster; ended, or left, with the context. Raises UsageError."""
    ray = _import_ray()
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    on_terminate = signal.getsignal(signal.SIGTERM)
    if args.ray == "local":
        for name, value in LOCAL_SETTINGS.items():
            os.environ.setdefault(name, value)
        cpus = args.ray_workers and args.ray_workers * (args.ray_cpus_per_worker or 1)
        cpus = cpus and max(cpus, os.cpu_count() or 1)
        ray.init("local", num_cpus=cpus, num_gpus=0 if wants_cpu(args) else None, include_dashboard=False, **quiet)
    else:
        _probe(args.ray)
        ray.init(args.ray, **quiet)
    signal.signal(signal.SIGTERM, on_terminate)  # Ray's own would end this process without a summary
    try:
        yield ray
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Join a cluster from another process, since Ray waits for minutes where nothing answers. Raises UsageError."""
    if address.startswith("ray://"):
        raise UsageError(f"--ray {address}: join as a machine of the cluster: run this there, with --ray auto")
    host, _, port = address.rpartition(":")
    if address != "auto":
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise UsageError(f"--ray {address}: nothing answers there ({error}); give HOST:PORT, or auto") from None
    script = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    try:
        joined = subprocess.run(
            [sys.executable, "-c", script, address], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
        said = joined.stderr
    except subprocess.TimeoutExpired as error:
        joined, said = None, (error.stderr or b"").decode(errors="replace")
    if joined is not None and joined.returncode == 0:
        return
    if "InvalidAuthToken" in said:
        reason = "it asks for a token: set RAY_AUTH_MODE=token, and put its token into ~/.ray/auth_token"
    elif joined is None:
        reason = f"no Ray cluster answers there within {ANSWER_SECONDS} s"
    else:
        reason = " ".join(said.strip().splitlines()[-1:])
    raise UsageError(f"--ray {address}: {reason}")


# --- Workers ---------------------------------------------------------------------------------------------------------
class RayPool:
    """Workers and steps as Ray's actors and tasks: see dispatch.Pool."""

    def __init__(
        self,
        ray: ModuleType,
        shape: WorkerResources,
        settings: EngineSettings,
        shared: Sequence[Path],
        check: Callable[[], None],
    ) -> None:
        """`shared`: paths that all machines have to see. `check`: is called between waits."""
        self._check = check
        self._ray = ray
        self._shape = shape
        self._settings = settings
        self._shared = shared
        variables = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
        path = os.pathsep.join(filter(None, [str(config.PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
        variables = {"OMP_NUM_THREADS": str(shape.cpus)} | variables | {"PYTHONPATH": path}
        self._actor = ray.remote(
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            max_concurrency=DEPTH + 1,  # for each window a thread, and one for the window that is written
            runtime_env={"env_vars": variables},
        )(RayWorker)
        self._step = ray.remote(
            num_cpus=0,  # they need little, and must not wait for the workers to end
            max_retries=STEP_RETRIES,
            runtime_env={"env_vars": variables},
        )(call_function)
        self._workers: dict[str, Any] = {}  # actors that are ready
        self._nodes: dict[str, str] = {}  # of these
        self._starting: dict[Any, tuple[str, Any]] = {}  # by reference: name and actor
        self._calls: dict[Any, tuple[int, str | None]] = {}  # by reference: ticket, and which worker has it
        self._prepared: dict[int, Any] = {}  # by key: references
        self._tickets = 0
        self._started = 0
        self._failed_starts = 0
        self._looked = float("-inf")
        self._last_seen = time.monotonic()  # a worker
        self._environment = environment()

    def new_worker(self) -> Any:
        """An actor, which is not ready yet."""
        return self._actor.remote()

    def end_worker(self, actor: Any) -> None:
        """End an actor's process, whatever it does."""
        self._ray.kill(actor)

    def send_step(self, node: str | None, finished: Stage | None, stages: Sequence[StageRequest]) -> Any:
        """Have a step taken on a machine, or on any; returns the reference to its Outcome."""
        strategy: Any = "DEFAULT"
        if node is not None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        step = self._step.options(scheduling_strategy=strategy)
        return step.remote(advance, finished, list(stages), self._settings.identity)

    def compute(self, worker: str, key: int, prepared: Stage, window: Window, keep_features: bool) -> int:
        """Send a window to a worker."""
        if key not in self._prepared:
            self._prepared[key] = self._ray.put(prepared)
        call_of_worker = self._workers[worker].compute.remote(key, [self._prepared[key]], window, keep_features)
        return self._remember(call_of_worker, worker)

    def advance(self, finished: Stage | None, stages: Sequence[StageRequest]) -> int:
        """Have a step taken, on the machines that have workers by turns: the others may not see the files."""
        nodes = sorted(set(self._nodes.values()))
        node = nodes[self._tickets % len(nodes)] if nodes else None
        return self._remember(self.send_step(node, finished, stages), None)

    def _remember(self, reference: Any, worker: str | None) -> int:
        self._tickets += 1
        self._calls[reference] = (self._tickets, worker)
        return self._tickets

    def forget(self, key: int) -> None:
        """No window of these prepared stages comes any more."""
        self._prepared.pop(key, None)

    def retire(self, worker: str) -> None:
        """End a worker, which may be gone already."""
        if worker in self._workers:
            self.end_worker(self._workers[worker])
            self._drop(worker)

    def close(self) -> None:
        """End all workers."""
        for actor in [*self._workers.values(), *(actor for _, actor in self._starting.values())]:
            self.end_worker(actor)

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        """What happened; see dispatch.Pool."""
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
                messages += self._greet(reference)
            elif reference in self._calls:  # else its worker was lost with an answer before
                messages.append(self._answer(reference))
        return messages

    # Starting.
    def _start_workers(self) -> None:
        now = time.monotonic()
        if self._workers:
            self._last_seen = now
        elif self._failed_starts >= MOST_FAILED_STARTS and not self._starting:
            raise UsageError(f"no worker can be started: {self._why}")
        elif now - self._last_seen > PATIENCE_SECONDS:
            raise UsageError(f"no worker for {PATIENCE_SECONDS} s: the cluster has no room for one with {self._shape}")
        if now - self._looked < (LOOK_SECONDS if self._failed_starts < MOST_FAILED_STARTS else RETRY_SECONDS):
            return
        self._looked = now
        for _ in range(self._shape.room(machines(self._ray)) - len(self._workers) - len(self._starting)):
            self._started += 1
            actor = self.new_worker()
            self._starting[actor.start.remote(self._settings, self._shared)] = (f"worker {self._started}", actor)

    def _greet(self, reference: Any) -> list[WorkerReady | WorkerLost | Answer]:
        name, actor = self._starting.pop(reference)
        outcome = self._get(reference)
        failure, welcome = outcome.failure, outcome.value
        if failure is None:
            differing = differing_keys(welcome.environment, self._environment)
            if not differing:
                LOG.debug("%s is ready on %s: %s", name, welcome.host, welcome.device)
                self._failed_starts = 0
                self._workers[name], self._nodes[name] = actor, welcome.node
                return [WorkerReady(name, welcome.node)]
            other = f"another {', '.join(differing)} on {welcome.host} than here: its windows would not fit the others"
            failure = Failure(other, "", expected=True)
        self.end_worker(actor)
        self._failed_starts += 1
        self._why = failure.message
        warn_once(f"a worker cannot be used: {failure.message}")
        LOG.debug("%s: %s", name, failure.trace)
        return []

    # Answers.
    def _answer(self, reference: Any) -> WorkerReady | WorkerLost | Answer:
        ticket, worker = self._calls.pop(reference)
        outcome = self._get(reference)
        if outcome.value is _LOST and worker is not None:
            reason = outcome.failure.message if outcome.failure else ""
            LOG.warning("%s is lost: %s", worker, reason)
            self._drop(worker)
            return WorkerLost(worker, reason)
        return Answer(ticket, outcome)

    def _get(self, reference: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayActorError as error:
            return Outcome(_LOST, Failure(_short(error), str(error), False))
        except errors.RayError as error:
            return Outcome(None, Failure(_short(error), str(error), False))

    def _drop(self, worker: str) -> None:
        self._looked = float("-inf")  # there is room for another one
        del self._workers[worker], self._nodes[worker]
        for reference in [reference for reference, (_, owner) in self._calls.items() if owner == worker]:
            del self._calls[reference]


_LOST = "lost"  # in place of what a worker would have given


def _short(error: Exception) -> str:
    """One line of Ray's many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# --- A run -----------------------------------------------------------------------------------------------------------
def run_on_cluster(
    name: str, listing: Listing, plan: Callable[[Event], Sequence[StageRequest]], args: argparse.Namespace
) -> int:
    """Take every event through the stages that `plan` gives for it, on a cluster; returns the exit code.

    `name`: of the run, in its summary. `args`: with the flags of `add_ray_arguments` and `add_sam_arguments`.
    """
    with connected(args) as ray, deferred_interrupts() as check:
        nodes = machines_with_room(ray, args, check)
        shape = worker_resources(args, nodes)
        settings = engine_settings(args, torch.device("cuda:0" if shape.gpus else "cpu"))
        settings = settings._replace(execution=settings.execution._replace(host_threads=shape.cpus))
        outputs = {stage.folder.parent for event in listing.events[:1] for stage in plan(event)}
        for folder in outputs:
            folder.mkdir(parents=True, exist_ok=True)
        weights = settings.weights
        LOG.info(
            "SAM %s: %s (%s); workers with %s each, now room for %d",
            *(settings.model_type, weights.path, weights.origin, shape, shape.room(nodes)),
        )
        pool = RayPool(ray, shape, settings, [args.data_root, *outputs], check)
        with follow_run(name, listing, lambda event: sum(stage.count_windows() for stage in plan(event))) as progress:
            try:
                Dispatcher(pool, listing, plan, progress).run()
            finally:
                pool.close()
    return progress.summary.exit_code
