"""Runs a script: over all events under one progress bar, to a summary and an exit code, with its log on stderr."""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tqdm import tqdm

import config
from utils import LOG, AnomalyCDError, Event, EventBusyError, Listing, UsageError


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
    summary = Summary(stage, skipped=list(listing.skipped), not_reached=[event.name for event in listing.events])
    windows = [_count_or_zero(count_windows, event) for event in listing.events]
    started = time.monotonic()
    # In a log file a bar is one line an update: seldom is enough there.
    interval = 0.1 if sys.stderr.isatty() else 30
    try:
        with tqdm(total=sum(windows), desc=stage, unit=unit, mininterval=interval) as bar:
            expected = 0
            for event, count in zip(listing.events, windows, strict=True):
                expected += count
                _run_event(event, process, bar, summary)
                summary.not_reached.remove(event.name)
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
    except EventBusyError as error:
        reason = str(error)
    except Exception as error:
        summary.failed.append((event.name, _describe(error)))
        LOG.error("%s: %s failed: %s", event.name, summary.stage, _describe(error))
        LOG.debug("%s: how it failed", event.name, exc_info=True)  # for --log-file
        return
    if reason is None:
        summary.done.append(event.name)
        LOG.debug("%s: %s done in %.0f s", event.name, summary.stage, time.monotonic() - started)
    else:
        summary.skipped.append((event.name, reason))
        LOG.debug("%s: %s skipped: %s", event.name, summary.stage, reason)


def _describe(error: Exception) -> str:
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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    for name, value in config.OVERRIDDEN.items():
        LOG.info("config: %s=%s from the environment", name, value)
    try:
        sys.exit(main())
    except UsageError as error:
        LOG.error("%s", error)
        sys.exit(2)
    except Exception as error:  # outside of any event: a table that cannot be written, or a defect
        LOG.error("%s", _describe(error))
        sys.exit(1)
    except Interrupted as error:
        LOG.error("interrupted (%s); what is finished is kept, and the next run goes on from there", error)
        sys.exit(error.exit_code)


def _interrupt(number: int, _: FrameType | None) -> None:
    for known in (signal.SIGINT, signal.SIGTERM):
        signal.signal(known, signal.SIG_IGN)  # the run is ending: files are closed, the summary is printed
    raise Interrupted(number)
