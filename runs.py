"""Runs a script: over all events under one progress bar, to a summary and an exit code, with its log on stderr."""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tqdm import tqdm

import config
from utils import LOG, AnomalyCDError, Event, EventBusyError, Listing, UsageError

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The user or the system asked the run to end: Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        """`number`: the signal's."""
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass
class Summary:
    """What became of every event of a run."""

    stage: str
    done: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    not_reached: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 when any event failed."""
        return 1 if self.failed else 0

    def log(self, seconds: float) -> None:
        """Write the summary, one line an event that is not done."""
        counts = f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed"
        if self.not_reached:
            counts += f", {len(self.not_reached)} not finished"
        LOG.info("%s: %s in %s", self.stage, counts, tqdm.format_interval(seconds))
        for kind, events in (("skipped", self.skipped), ("failed", self.failed)):
            for name, reason in events:
                LOG.info("  %s %s: %s", kind, name, reason)
        for name in self.not_reached:
            LOG.info("  not finished %s", name)


class Progress:
    """Follows a run over events, which may be worked on at once: its progress bar, and what becomes of each event."""

    def __init__(self, stage: str, listing: Listing, count_windows: Callable[[Event], int], unit: str) -> None:
        self.summary = Summary(
            stage, skipped=list(listing.skipped), not_reached=[event.name for event in listing.events]
        )
        self._windows_left = {event.name: _count_or_zero(count_windows, event) for event in listing.events}
        self._started: dict[str, float] = {}
        # In a log file a bar is one line an update: seldom is enough there.
        interval = 0.1 if sys.stderr.isatty() else 30
        self._bar = tqdm(total=sum(self._windows_left.values()), desc=stage, unit=unit, mininterval=interval)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def windows_left(self, event: Event) -> int:
        """How many windows of an event have not been counted yet."""
        return self._windows_left[event.name]

    def begin(self, event: Event) -> None:
        """Note that an event is begun."""
        self._started[event.name] = time.monotonic()

    def window_done(self, event: Event) -> None:
        """Count a window of an event."""
        self._windows_left[event.name] -= 1
        self._bar.update()

    def done(self, event: Event, reason: str | None) -> None:
        """Note that an event is finished, or the reason why it was skipped."""
        self._end(event)
        seconds = time.monotonic() - self._started[event.name]
        if reason is None:
            self.summary.done.append(event.name)
            LOG.debug("%s: %s done in %.0f s", event.name, self.summary.stage, seconds)
        else:
            self.summary.skipped.append((event.name, reason))
            LOG.debug("%s: %s skipped: %s", event.name, self.summary.stage, reason)

    def failed(self, event: Event, error: Exception) -> None:
        """Say at once that an event failed, and why."""
        self._end(event)
        self.summary.failed.append((event.name, describe(error)))
        LOG.error("%s: %s failed: %s", event.name, self.summary.stage, describe(error))
        LOG.debug("%s: how it failed", event.name, exc_info=error)  # for --log-file

    def _end(self, event: Event) -> None:
        self._bar.update(self._windows_left.pop(event.name))
        self.summary.not_reached.remove(event.name)


@contextmanager
def follow_run(
    stage: str, listing: Listing, count_windows: Callable[[Event], int], unit: str = "window"
) -> Iterator[Progress]:
    """Show the progress of a run over the events of a listing, and its summary in the end, however it ends.

    `count_windows`: how many of its `unit` an event has.
    """
    started = time.monotonic()
    progress = Progress(stage, listing, count_windows, unit)
    try:
        yield progress
    finally:
        progress.close()
        progress.summary.log(time.monotonic() - started)


def run_events(
    stage: str,
    listing: Listing,
    count_windows: Callable[[Event], int],
    process: Callable[[Event, Callable[[], object]], str | None],
    unit: str = "window",
) -> Summary:
    """Process every event under one progress bar; an event that fails does not stop the others.

    `process(event, window_done)` returns None, or the reason why the event was skipped; it raises an error when the
    event failed, and calls `window_done` after each of the `count_windows(event)` windows. `unit` names them.
    """
    with follow_run(stage, listing, count_windows, unit) as progress:
        for event in listing.events:
            progress.begin(event)
            try:
                progress.done(event, process(event, partial(progress.window_done, event)))
            except EventBusyError as error:
                progress.done(event, str(error))
            except Exception as error:
                progress.failed(event, error)
    return progress.summary


def _count_or_zero(count_windows: Callable[[Event], int], event: Event) -> int:
    try:
        return count_windows(event)
    except Exception:
        return 0  # the event itself will fail with this error, in its turn


def describe(error: Exception) -> str:
    """An error in one line, whatever a library's message looks like."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (AnomalyCDError, OSError, MemoryError)):
        return text
    return f"unexpected {type(error).__name__}: {text} (--log-file keeps where)"  # a defect of ours


class _TerminalHandler(logging.Handler):
    """Shows one line a message on stderr, above the progress bar where there is one; traces belong to the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        tqdm.write(level + record.getMessage(), file=sys.stderr)


def add_log_argument(parser: argparse.ArgumentParser) -> None:
    """`--log-file`."""
    parser.add_argument(
        "--log-file", type=Path, help="file to append a full log to, with traces of all failures (default: none)"
    )


@contextmanager
def keep_log(path: Path | None) -> Iterator[None]:
    """Append everything that is logged to a file, if one is named. Raises UsageError where it cannot be opened."""
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); name another --log-file") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(message)s"))
    LOG.addHandler(handler)
    LOG.debug("%s", " ".join(sys.argv))
    try:
        yield
    except Exception:
        LOG.debug("how it ended", exc_info=True)
        raise
    finally:
        LOG.removeHandler(handler)
        handler.close()


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` with its log on stderr, and exit: 2 for usage errors, 130 or 143 when interrupted."""
    LOG.addHandler(_TerminalHandler(logging.INFO))
    LOG.setLevel(logging.DEBUG)
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    for name, value in config.OVERRIDDEN.items():
        LOG.info("config: %s=%s from the environment", name, value)
    try:
        sys.exit(main())
    except UsageError as error:
        LOG.error("%s", error)
        sys.exit(2)
    except Exception as error:  # outside of any event: a table that cannot be written, or a defect
        LOG.error("%s", describe(error))
        sys.exit(1)
    except Interrupted as error:
        LOG.error("interrupted (%s); what is finished is kept, and the next run goes on from there", error)
        sys.exit(error.exit_code)


def _interrupt(number: int, _: FrameType | None) -> None:
    for known in INTERRUPTS:
        signal.signal(known, signal.SIG_IGN)  # the run is ending: files are closed, the summary is printed
    raise Interrupted(number)


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Let signals wait until the function that this gives is called, which then raises Interrupted.

    For a library that cannot bear an exception while it waits.
    """
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in INTERRUPTS}

    def check() -> None:
        if arrived:
            _interrupt(arrived[0], None)

    try:
        yield check
    finally:
        if not arrived:
            for number, handler in before.items():
                signal.signal(number, handler)
