"""Runs a script: over all events under one progress bar, to a summary and an exit code, with its log on stderr."""

import logging
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import config
from utils import LOG, AnomalyCDError, Event, Listing, UsageError


@dataclass
class Summary:
    """What became of every event of a run."""

    stage: str
    done: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 when any event failed."""
        return 1 if self.failed else 0

    def log(self, seconds: float) -> None:
        """Write the summary, one line an event that is not done."""
        counts = f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed"
        LOG.info("%s: %s in %s", self.stage, counts, tqdm.format_interval(seconds))
        for kind, events in (("skipped", self.skipped), ("failed", self.failed)):
            for name, reason in events:
                LOG.info("  %s %s: %s", kind, name, reason)


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
    summary = Summary(stage, skipped=list(listing.skipped))
    windows = [_count_or_zero(count_windows, event) for event in listing.events]
    started = time.monotonic()
    # In a log file a bar is one line an update: seldom is enough there.
    interval = 0.1 if sys.stderr.isatty() else 30
    try:
        with (
            logging_redirect_tqdm([LOG]),
            tqdm(total=sum(windows), desc=stage, unit=unit, mininterval=interval) as bar,
        ):
            expected = 0
            for event, count in zip(listing.events, windows, strict=True):
                expected += count
                _run_event(event, process, bar, summary)
                bar.update(expected - bar.n)
    finally:
        summary.log(time.monotonic() - started)
    return summary


def _count_or_zero(count_windows: Callable[[Event], int], event: Event) -> int:
    try:
        return count_windows(event)
    except Exception:
        return 0  # the event itself will fail with this error, in its turn


def _run_event(
    event: Event, process: Callable[[Event, Callable[[], object]], str | None], bar: tqdm, summary: Summary
) -> None:
    started = time.monotonic()
    try:
        reason = process(event, bar.update)
    except (AnomalyCDError, OSError, MemoryError) as error:
        problem = str(error) or type(error).__name__
    except Exception as error:  # a defect of ours: keep the night's other events, and the trace for the report
        problem = f"unexpected {type(error).__name__}: {error}"
        LOG.error("%s", traceback.format_exc())
    else:
        if reason is None:
            summary.done.append(event.name)
            LOG.info("%s: %s done in %.0f s", event.name, summary.stage, time.monotonic() - started)
        else:
            summary.skipped.append((event.name, reason))
        return
    problem = " ".join(problem.split())  # one line, whatever a library's message looks like
    summary.failed.append((event.name, problem))
    LOG.error("%s: %s failed: %s", event.name, summary.stage, problem)


class _LevelFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return message if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {message}"


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` with its log on stderr, and exit: 2 for usage errors, 130 when interrupted."""
    handler = logging.StreamHandler()
    handler.setFormatter(_LevelFormatter())
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    for name, value in config.OVERRIDDEN.items():
        LOG.info("config: %s=%s from the environment", name, value)
    try:
        sys.exit(main())
    except UsageError as error:
        LOG.error("%s", error)
        sys.exit(2)
    except OSError as error:  # outside of any event: a table or a folder that cannot be written
        LOG.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        LOG.error("interrupted; finished events are kept")
        sys.exit(130)
