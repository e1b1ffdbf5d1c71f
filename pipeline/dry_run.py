"""Prints what a run would do: events, windows, memory, and what would be skipped."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from img_io import event_shape
from pipeline.stage import StagePlan, StageRequest
from sam.memory import estimate_memory
from sam.settings import EngineSettings
from sam.speed import estimate_seconds
from sam.weights import SamIdentity
from utils import Event, Listing, date_text, describe_error


class PlannedStage(NamedTuple):
    """What a run would do in one stage of an event."""

    windows: int  # to compute
    images: tuple[int, int] = (0, 0)  # per window: to encode, and to generate masks of
    finished: int = 0  # windows left by an interrupted run
    skipped: str | None = None  # why the stage is skipped

    def __str__(self) -> str:
        """Text for the table."""
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        already = f", {self.finished} already finished" if self.finished else ""
        return f"{self.windows} window{'s' if self.windows != 1 else ''}{already}"


class PlannedEvent(NamedTuple):
    """What a run would do with an event."""

    name: str
    size: str
    dates: str
    pixels: int
    largest_window: int  # pixels
    stages: list[PlannedStage]
    error: str | None = None

    @property
    def windows(self) -> int:
        """The number of windows to compute."""
        return sum(stage.windows for stage in self.stages)

    def __str__(self) -> str:
        """Text for the table."""
        return f"would fail: {self.error}" if self.error else "; ".join(map(str, self.stages))


def plan_event(event: Event, stages: Sequence[StageRequest], sam: SamIdentity) -> PlannedEvent:
    """Return the plan for an event. Reads its files and changes none."""
    try:
        height, width = event_shape(event)
        tiled = [stage.tile_event() for stage in stages]
        planned: list[PlannedStage] = []
        for stage, windows in zip(stages, tiled, strict=True):
            # A stage that follows a computed one is computed too.
            must_compute = any(earlier.skipped is None for earlier in planned)
            images = stage.images_per_window()
            planned.append(PlannedStage(len(windows), images) if must_compute else _plan_stage(stage, sam))
    except Exception as error:
        return PlannedEvent(event.name, "", _dates(event), 0, 0, [], describe_error(error))
    largest = max(window.width * window.height for windows in tiled for window in windows)
    return PlannedEvent(event.name, f"{width} x {height}", _dates(event), height * width, largest, planned)


def _dates(event: Event) -> str:
    """Return number and span of an event's dates, and whether it has a label."""
    number = len(event.historical) + 1
    span = f"{number} dates, {date_text(event.historical[0])} to {date_text(event.monitor)}"
    return f"{span}, label" if event.label else span


def _plan_stage(stage: StageRequest, sam: SamIdentity) -> PlannedStage:
    job = stage.open(sam)
    if stage.skip_existing and job.can_be_skipped():
        return PlannedStage(0, skipped=job.SKIP_REASON)
    finished = len(job.store().finished())
    return PlannedStage(len(job.windows) - finished, stage.images_per_window(), finished)


def print_plan(name: str, listing: Listing, plan: StagePlan, settings: EngineSettings, is_here: bool) -> int:
    """Print the plan of a run as a table; returns 1 if an event would fail, else 0.

    `is_here`: the run is in this process, so that its time can be estimated.
    """
    events = [
        plan_event(event, plan(event), settings.identity)
        for event in tqdm(listing.events, desc="planning", unit="event", disable=not sys.stderr.isatty())
    ]
    _print_table(events, listing.skipped)
    failing = sum(event.error is not None for event in events)
    computed = [event for event in events if event.windows]
    print(
        f"{name}: {sum(event.windows for event in events)} windows to compute in {len(computed)} events, "
        f"{len(events) - len(computed) - failing + len(listing.skipped)} skipped, {failing} would fail"
    )
    if computed:
        _print_memory(settings, computed)
        if is_here:
            _print_time(settings, computed)
    return 1 if failing else 0


def _print_table(events: Sequence[PlannedEvent], skipped: Sequence[tuple[str, str]]) -> None:
    """Print one line per event folder: name, size, dates, label and plan."""
    lines = [(event.name, event.size, event.dates, str(event)) for event in events]
    lines += [(name, "", "", f"skipped: {reason}") for name, reason in skipped]
    name_width, dates_width = (max([len(line[column]) for line in lines], default=0) for column in (0, 2))
    for name, size, dates, text in lines:
        print(f"{name:{name_width}}  {size:>15}  {dates:{dates_width}}  {text}")


def _print_memory(settings: EngineSettings, events: Sequence[PlannedEvent]) -> None:
    """Print estimates of the memory and disk space that the run takes."""
    print(settings)
    largest_window = max(event.largest_window for event in events)
    memory = estimate_memory(settings.model_type, settings.device.type, settings.execution, largest_window)
    on_device = f" and {_gib(memory.device_bytes)} of its GPU's" if memory.device_bytes else ""
    print(f"each process takes up to about {_gib(memory.host_bytes)} of memory{on_device}")
    waiting = 4 * max(event.pixels for event in events)
    print(f"an unfinished event takes up to {_gib(waiting)} of disk space for its windows, in addition to its outputs")


def _print_time(settings: EngineSettings, events: Sequence[PlannedEvent]) -> None:
    """Print an estimate of the time that the run takes."""
    encoded, masked = (
        sum(stage.windows * stage.images[kind] for event in events for stage in event.stages) for kind in (0, 1)
    )
    seconds = estimate_seconds(settings.model_type, settings.device, settings.execution.precision, encoded, masked)
    print(f"it takes about {rounded(seconds)} on {settings.device}, estimated from the speed of matrix products")


def rounded(seconds: float) -> str:
    """Return a time with one significant digit."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            number = float(f"{seconds / length:.1g}")
            return f"{number:g} {unit}{'s' if number > 1 else ''}"
    return "a minute"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
