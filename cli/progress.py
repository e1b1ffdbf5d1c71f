"""Tracks a run over events: progress bar, outcome of each event, summary."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

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


def progress_bar(title: str, unit: str, total: int | None = None) -> tqdm:
    """Return a progress bar on stderr. `total`: None if it is not known."""
    # In a log file, each update of the bar is a separate line, so updates are rare.
    return tqdm(desc=title, unit=unit, total=total, mininterval=0.1 if sys.stderr.isatty() else 30)


class Progress:
    """The progress bar of a run and the outcomes of its events; several events may be in progress, on any threads."""

    def __init__(self, stage: str, listing: Listing, count_units: Callable[[Event], int], unit: str) -> None:
        self.summary = Summary(
            stage,
            skipped=list(listing.skipped),
            not_reached=[event.name for event in listing.events],
            ignored=listing.ignored(),
        )
        self._units_left = {event.name: _count_or_zero(count_units, event) for event in listing.events}
        self._started: dict[str, float] = {}
        self._lock = Lock()
        self._bar = progress_bar(stage, unit, sum(self._units_left.values()))

    def close(self) -> None:
        """Close the progress bar."""
        self._bar.close()

    def units_left(self, event: Event) -> int:
        """Return the number of units of an event that are not done."""
        return self._units_left[event.name]

    def begin(self, event: Event) -> None:
        """Start the timer of an event."""
        self._started[event.name] = time.monotonic()

    def units_done(self, event: Event, count: int = 1) -> None:
        """Count units of an event, such as windows or images, as done."""
        with self._lock:
            self._units_left[event.name] -= count
            self._bar.update(count)

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
            self._bar.update(self._units_left.pop(event.name))
            self.summary.not_reached.remove(event.name)


@contextmanager
def follow_run(
    stage: str, listing: Listing, count_units: Callable[[Event], int], unit: str = "window"
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


def _count_or_zero(count_units: Callable[[Event], int], event: Event) -> int:
    try:
        return count_units(event)
    except Exception:
        return 0  # processing the event will raise the same error
