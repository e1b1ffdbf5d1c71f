"""Simulated events and workers, which wait instead of computing, for the real dispatcher and real Ray."""

import asyncio
import heapq
import random
import socket
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import config
from cluster.environment import environment
from cluster.ray_pool import RayPool
from cluster.ray_worker import WorkerInfo
from cluster.remote_calls import Outcome
from cluster.resources import WorkerResources
from img_io import ImageOptions
from pipeline.dispatch import Answer, WorkerLost, WorkerReady
from pipeline.stage import Stage, StageProgress, StageRequest
from pipeline.stage2 import Stage2Settings
from sam.settings import EngineSettings
from sam.weights import SamIdentity
from utils import Event, Listing, Window, tile

# Known of the published events: their number, the largest size and the most dates.
EVENTS = 80
SMALLEST, LARGEST = 2.0, 130.0  # megapixels
FEWEST_DATES, MOST_DATES = 3, 7
NARROWEST, WIDEST = 0.75, 1.33  # width over height
SEED = 20


# --- Events ----------------------------------------------------------------------------------------------------------
class Costs(NamedTuple):
    """Seconds of each kind of work."""

    open: float  # an event, before its first window
    stage1_window: float  # of full size
    stage2_date: float  # per date of a window of full size
    stage1_megapixel: float  # to write stage 1's maps and open stage 2
    stage2_megapixel: float  # to write stage 2's maps

    def divided_by(self, times: float) -> "Costs":
        """Return the costs divided by `times`."""
        return Costs(*(seconds / times for seconds in self))


class Extent(NamedTuple):
    """Size and number of dates of a simulated event."""

    shape: tuple[int, int]  # height and width
    dates: int


def draw_extents(events: int) -> list[Extent]:
    """Draw log-uniform sizes between the limits, the first at the upper limit; always the same ones."""
    drawn = random.Random(SEED)
    extents = []
    for number in range(events):
        megapixels = SMALLEST * (LARGEST / SMALLEST) ** (drawn.random() if number else 1)
        width = (megapixels * 1e6 * drawn.uniform(NARROWEST, WIDEST)) ** 0.5
        shape = round(megapixels * 1e6 / width), round(width)
        extents.append(Extent(shape, drawn.randint(FEWEST_DATES, MOST_DATES)))
    return extents


@dataclass(frozen=True)
class SimulatedStage:
    """A stage whose windows and maps only take time. Has the parts of `Stage` that dispatchers and pools use."""

    request: StageRequest
    windows: Sequence[Window]
    patch_size: int  # side of a full window, pixels
    full_window: float  # seconds
    step: float  # seconds to write the maps and open the next stage

    def seconds(self, window: Window) -> float:
        """Return the seconds of a window, in proportion to its area."""
        return self.full_window * window.width * window.height / self.patch_size**2


@dataclass(frozen=True)
class SimulatedRequest(StageRequest):
    """A stage of a simulated event."""

    shape: tuple[int, int]
    patch_size: int
    full_window: float  # seconds
    step: float  # seconds

    def tile_event(self) -> list[Window]:
        """Return the windows in order."""
        return tile(*self.shape, self.patch_size)

    NAME = "simulated"

    def images_per_window(self) -> tuple[int, int]:
        """Return that no image is encoded."""
        return 0, 0

    def open(self, sam: SamIdentity) -> Stage:
        """Return the stage; there are no files."""
        return cast(Stage, SimulatedStage(self, self.tile_event(), self.patch_size, self.full_window, self.step))


class Simulation(NamedTuple):
    """Simulated events."""

    plans: dict[str, list[StageRequest]]  # of each event, by name
    listing: Listing
    costs: Costs

    @classmethod
    def from_extents(cls, extents: Sequence[Extent], costs: Costs, folder: Path) -> "Simulation":
        """Make events of these extents. `folder`: for their locks."""
        plans: dict[str, list[StageRequest]] = {}
        listing = Listing()
        for number, (shape, dates) in enumerate(extents):
            event = Event(folder / f"4_event_{number}", folder, (), None)
            megapixels = shape[0] * shape[1] / 1e6
            step1, step2 = costs.stage1_megapixel * megapixels, costs.stage2_megapixel * megapixels
            rest = (event, event.folder, ImageOptions(), False, Stage2Settings(), shape)
            patch_size2 = max(Stage2Settings().tile(shape)[0][2:])
            plans[event.name] = [
                SimulatedRequest(*rest, config.STAGE1_PATCH_SIZE, costs.stage1_window, step1),
                SimulatedRequest(*rest, patch_size2, costs.stage2_date * dates, step2),
            ]
            listing.events.append(event)
        return cls(plans, listing, costs)

    def plan(self, event: Event) -> list[StageRequest]:
        """Return the stages of an event."""
        return self.plans[event.name]

    def window_seconds(self) -> list[float]:
        """Return the seconds of each window."""
        return [seconds for plans in self.plans.values() for plan in plans for seconds in _window_seconds(plan)]

    def longest_chain(self) -> float:
        """Return the longest event's seconds from opening to end if each of its windows had its own worker."""
        return self.costs.open + max(
            sum(max(_window_seconds(plan)) + cast(SimulatedRequest, plan).step for plan in plans)
            for plans in self.plans.values()
        )


def _window_seconds(plan: StageRequest) -> list[float]:
    stage = cast(SimulatedStage, plan.open(SamIdentity({}, "")))
    return [stage.seconds(window) for window in stage.windows]


def simulated_step(
    finished: Stage | None, stages: Sequence[StageRequest], open_seconds: float
) -> tuple[float, StageProgress]:
    """Return the seconds and the result of a step: see pipeline.stage.advance."""
    seconds = open_seconds if finished is None else cast(SimulatedStage, finished).step
    reasons: list[str | None] = [] if finished is None else [None]
    if not stages:
        return seconds, StageProgress(reasons)
    stage = stages[0].open(SamIdentity({}, ""))
    return seconds, StageProgress(reasons, stage, stage.windows, stages[1:])


# --- Workers behind Ray ----------------------------------------------------------------------------------------------
class Host:
    """Many workers, or steps, in one process; becomes a Ray actor whose calls wait concurrently."""

    def __init__(self, open_seconds: float) -> None:
        self._open_seconds = open_seconds
        self._devices: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)  # by worker: one window at a time
        self._prepared: dict[int, SimulatedStage] = {}
        self._worker_info = WorkerInfo(socket.gethostname(), "node", "none", environment())

    async def start(self, *_: object) -> Outcome:
        """Start a worker, which has nothing to load."""
        return Outcome(self._worker_info)

    async def compute(self, worker: int, key: int, stage: Sequence[Any], window: Window, _: bool) -> Outcome:
        """Wait as long as the window would take."""
        if key not in self._prepared:
            self._prepared[key] = await stage[0]
        async with self._devices[worker]:
            await asyncio.sleep(self._prepared[key].seconds(window))
        return Outcome()

    async def take_step(self, finished: Stage | None, stages: Sequence[StageRequest], _: SamIdentity) -> Outcome:
        """Wait as long as the step would take."""
        seconds, step = simulated_step(finished, stages, self._open_seconds)
        await asyncio.sleep(seconds)
        return Outcome(step)


class _Method(NamedTuple):
    method: Any  # of a host
    worker: int

    def remote(self, *arguments: Any) -> Any:
        return self.method.remote(self.worker, *arguments)


class _Actor:
    """A stand-in for a worker's actor."""

    def __init__(self, host: Any, worker: int) -> None:
        self.start, self.compute = _Method(host.start, worker), _Method(host.compute, worker)


class SimulatedPool(RayPool):
    """A Ray pool with many workers in few processes: hundreds of processes would need too much memory."""

    def __init__(self, ray: Any, settings: EngineSettings, workers: int, processes: int, open_seconds: float) -> None:
        """Start the processes and wait until they are ready. `open_seconds`: seconds to open an event."""
        super().__init__(ray, _UnlimitedResources(1, 0.0, workers), settings, [], lambda: None)
        variables = {"PYTHONPATH": str(config.PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
        options = {"num_cpus": 0, "max_concurrency": 10_000, "runtime_env": {"env_vars": variables}}
        host = ray.remote(**options)(Host)
        self._hosts = [host.remote(open_seconds) for _ in range(min(processes, workers) + 1)]
        ray.get([host.start.remote() for host in self._hosts])
        self._made = 0

    def new_worker(self) -> Any:
        """Return a worker in a process with the fewest workers."""
        self._made += 1
        return _Actor(self._hosts[1 + self._made % (len(self._hosts) - 1)], self._made)

    def end_worker(self, actor: Any) -> None:
        """Do nothing: other workers share the process."""

    def send_step(self, node: str | None, finished: Stage | None, stages: Sequence[StageRequest]) -> Any:
        """Send the step to the process that is reserved for steps."""
        return self._hosts[0].take_step.remote(finished, list(stages), self._settings.identity)


class _UnlimitedResources(WorkerResources):
    """Resources with room for all workers."""

    def room(self, nodes: Sequence[dict[str, float]]) -> int:
        return self.max_workers or 0


# --- Workers on paper ------------------------------------------------------------------------------------------------
class PaperPool:
    """Workers whose time is only counted: the cost of the order of the windows alone, without any overhead."""

    depth = RayPool.depth
    most_events = RayPool.most_events

    def __init__(self, workers: int, open_seconds: float) -> None:
        self.now = 0.0
        self._open_seconds = open_seconds
        self._messages: list[WorkerReady | WorkerLost | Answer] = [
            WorkerReady(f"worker {i}", "node") for i in range(workers)
        ]
        self._coming: list[tuple[float, int, StageProgress | None]] = []  # a heap: time, ticket, value
        self._free: defaultdict[str, float] = defaultdict(float)  # time from which a worker is free
        self._tickets = 0

    def compute(self, worker: str, key: int, prepared: Stage, window: Window, keep_features: bool) -> int:
        """Queue a window after the worker's earlier ones."""
        seconds = cast(SimulatedStage, prepared).seconds(window)
        self._free[worker] = max(self._free[worker], self.now) + seconds
        return self._answer(self._free[worker], None)

    def advance(self, finished: Stage | None, stages: Sequence[StageRequest]) -> int:
        """Begin a step at once."""
        seconds, step = simulated_step(finished, stages, self._open_seconds)
        return self._answer(self.now + seconds, step)

    def _answer(self, when: float, value: StageProgress | None) -> int:
        self._tickets += 1
        heapq.heappush(self._coming, (when, self._tickets, value))
        return self._tickets

    def forget(self, key: int, is_last: bool) -> None:
        """Do nothing: nothing is kept."""

    def retire(self, worker: str) -> None:
        """Do nothing: no worker fails."""

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        """Return the ready messages of all workers first, then one answer per call."""
        messages, self._messages = self._messages, []
        if not messages:
            self.now, ticket, value = heapq.heappop(self._coming)
            messages.append(Answer(ticket, value))
        return messages
