"""Runs a script: log on stderr, errors as one line, signals, exit codes."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tqdm import tqdm

import config
from utils import LOG, UsageError, describe_error

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The user or the system asked the run to end: Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        """`number`: the signal's."""
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _TerminalHandler(logging.Handler):
    """Shows one line a message on stderr, above the progress bar where there is one; traces belong to the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        tqdm.write(level + record.getMessage(), file=sys.stderr)


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
        LOG.error("%s", describe_error(error))
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
