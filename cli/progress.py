"""Tracks a run over events: progress bar, outcome of each event, summary."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

from tqdm import tqdm

from utils import LOG, Event, EventBusyError, Listing, UsageError, describe_error


@dataclass
class Summary:
    """The outcome of every event of a run."""

    stage: str
    done: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    not_reached: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # lines on what lies in the data root and is no event

    @property
    def exit_code(self) -> int:
        """1 if any event failed, else 0."""
        return 1 if self.failed else 0

    def log(self, seconds: float) -> None:
        """Log the summary, with one line per event that is not done, and what is ignored in the data root.

        Why events failed was logged when they did.
        """
        counts = f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed"
        if self.not_reached:
            counts += f", {len(self.not_reached)} not finished"
        LOG.info("%s: %s in %s", self.stage, counts, tqdm.format_interval(seconds))
        for name, reason in self.skipped:
            LOG.info("  skipped %s: %s", name, reason)
        for name, _ in self.failed:
            LOG.info("  failed %s", name)
        for name in self.not_reached:
            LOG.info("  not finished %s", name)
        for line in self.ignored:
            LOG.info("  %s", line)


def progress_bar(title: str, unit: str, total: float | None = None, kind: type[tqdm] = tqdm, **options: Any) -> tqdm:
    """Return a progress bar on stderr. `total`: None if it is not known. `options`: of `kind`."""
    # In a log file, each update of the bar is a separate line, so updates are rare.
    return kind(desc=title, unit=unit, total=total, mininterval=0.1 if sys.stderr.isatty() else 30, **options)


class Kind(NamedTuple):
    """A kind of unit of a run, such as the windows of one stage."""

    name: str = ""  # for the summary of times
    work: float = 1.0  # of a unit, on a scale that all kinds of the run share


UNIT = Kind()
Amount = int | Mapping[Kind, int]  # units of an event, all of one kind or by kind


class _WorkBar(tqdm):
    """A bar that shows the share of the work, its remaining time, and beside these the number of units."""

    def __init__(self, counted: tuple[int, int], **options: Any) -> None:
        """`counted`: units that are done, and all units."""
        self.counted = counted
        super().__init__(**options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values for the bar's format."""
        return {**super().format_dict, "counted": "{}/{}".format(*self.counted)}


class Progress:
    """The progress bar of a run and the outcomes of its events; several events may be in progress, on any threads.

    Units that are not computed, because an event is skipped or has failed, count as done; their work leaves the bar, so
    that the remaining time is right.
    """

    def __init__(self, stage: str, listing: Listing, count_units: Callable[[Event], Amount], unit: str) -> None:
        self.summary = Summary(
            stage,
            skipped=list(listing.skipped),
            not_reached=[event.name for event in listing.events],
            ignored=listing.ignored(),
        )
        self._units_left = {event.name: _count_or_none(count_units, event) for event in listing.events}
        self._started: dict[str, float] = {}
        self._lock = Lock()
        self._in_hand = 0.0  # work on units that are not done
        self._seconds: dict[str, float] = {}  # by kind: the time until one of its units was done
        self._last = time.monotonic()  # when a unit was done, or the run began
        kinds = [(kind, count) for units in self._units_left.values() for kind, count in units.items()]
        form = "{l_bar}{bar}| {counted} {unit}s [{elapsed}<{remaining}]"
        work = sum(kind.work * count for kind, count in kinds)
        counted = (0, sum(count for _, count in kinds))
        self._bar = progress_bar(stage, unit, work, _WorkBar, bar_format=form, smoothing=0, counted=counted)

    def close(self) -> None:
        """Close the progress bar."""
        done, total = self._bar.counted
        if done == total:
            self._bar.n = self._bar.total = max(self._bar.n, 1)
        self._bar.close()

    @property
    def seconds(self) -> dict[str, float]:
        """The time that passed until units of each kind were done, by the kind's name; the sum is that of the run."""
        return {name: seconds for name, seconds in self._seconds.items() if name}

    def units_left(self, event: Event) -> int:
        """Return the number of units of an event that are not done."""
        return sum(self._units_left[event.name].values())

    def begin(self, event: Event) -> None:
        """Start the timer of an event."""
        self._started[event.name] = time.monotonic()

    def units_done(self, event: Event, count: int = 1, kind: Kind = UNIT) -> None:
        """Count units of an event, such as windows or images, as done."""
        with self._lock:
            now = time.monotonic()
            self._seconds[kind.name] = self._seconds.get(kind.name, 0.0) + now - self._last
            self._last = now
            self._count(event, count, kind)
            # Work in hand was shown already, so that it is not shown again.
            before, work = self._in_hand, count * kind.work
            self._in_hand = max(before - work, 0.0)
            self._bar.update(work + self._in_hand - before)

    def units_found(self, event: Event, count: int, kind: Kind = UNIT) -> None:
        """Count units that an earlier run finished."""
        with self._lock:
            self._drop(event, count, kind)

    def work_in_hand(self, work: float) -> None:
        """Show work on units that are not done yet."""
        with self._lock:
            self._in_hand += work
            self._bar.update(work)

    def _count(self, event: Event, count: int, kind: Kind) -> None:
        left = self._units_left[event.name]
        left[kind] = left.get(kind, 0) - count  # below 0 if the event's units could not be counted
        done, total = self._bar.counted
        self._bar.counted = (done + count, total)

    def _drop(self, event: Event, count: int, kind: Kind) -> None:
        self._count(event, count, kind)
        self._bar.total = max(self._bar.total - count * kind.work, self._bar.n)
        self._bar.update(0)

    def done(self, event: Event, reason: str | None) -> None:
        """Record that an event is finished, or the reason why it was skipped."""
        self._end(event)
        seconds = time.monotonic() - self._started[event.name]
        if reason is None:
            self.summary.done.append(event.name)
            LOG.debug("%s: %s done in %.0f s", event.name, self.summary.stage, seconds)
        else:
            self.summary.skipped.append((event.name, reason))
            LOG.debug("%s: %s skipped: %s", event.name, self.summary.stage, reason)

    def failed(self, event: Event, error: Exception) -> None:
        """Record that an event failed, and log the reason."""
        self._end(event)
        self.summary.failed.append((event.name, describe_error(error)))
        LOG.error("%s: %s failed: %s", event.name, self.summary.stage, describe_error(error))
        LOG.debug("%s: traceback", event.name, exc_info=error)  # for --log-file

    def stopped(self, event: Event, error: Exception) -> None:
        """Record that an event is skipped, if another run holds its lock, or that it failed."""
        if isinstance(error, EventBusyError):
            self.done(event, str(error))
        else:
            self.failed(event, error)

    def _end(self, event: Event) -> None:
        with self._lock:
            for kind, count in list(self._units_left[event.name].items()):
                self._drop(event, count, kind)
            self.summary.not_reached.remove(event.name)


@contextmanager
def follow_run(
    stage: str, listing: Listing, count_units: Callable[[Event], Amount], unit: str = "window"
) -> Iterator[Progress]:
    """Show the progress of a run over the events of a listing, and log its summary at the end, also after an error.

    `count_units`: returns the number of units of an event; `unit` is their name in the bar.
    """
    started = time.monotonic()
    progress = Progress(stage, listing, count_units, unit)
    try:
        yield progress
    finally:
        progress.close()
        if progress.seconds:
            times = (f"{name} {tqdm.format_interval(seconds)}" for name, seconds in progress.seconds.items())
            LOG.info("%s: %s", stage, ", ".join(times))
        progress.summary.log(time.monotonic() - started)


def run_events(
    stage: str,
    listing: Listing,
    count_units: Callable[[Event], int],
    process: Callable[[Event, Callable[..., object]], str | None],
    unit: str = "window",
) -> Summary:
    """Process every event under one progress bar; an event that fails does not stop the others.

    `process(event, units_done)` returns None, or the reason why the event was skipped, and raises an error if the
    event failed. It calls `units_done()` after each of the `count_units(event)` units, or `units_done(n)` after
    n units. Raises UsageError if `process` does.
    """
    with follow_run(stage, listing, count_units, unit) as progress:
        for event in listing.events:
            progress.begin(event)
            try:
                progress.done(event, process(event, partial(progress.units_done, event)))
            except UsageError:
                raise  # the run is impossible as requested
            except Exception as error:
                progress.stopped(event, error)
    return progress.summary


def _count_or_none(count_units: Callable[[Event], Amount], event: Event) -> dict[Kind, int]:
    try:
        amount = count_units(event)
    except Exception:
        return {}  # processing the event will raise the same error
    return {UNIT: amount} if isinstance(amount, int) else dict(amount)
