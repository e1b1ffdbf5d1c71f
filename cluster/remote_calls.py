"""Brings home from another process what a call gave: its value or its error, and what was logged meanwhile."""

import logging
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from utils import LOG, AnomalyCDError, describe_error, warn_once


class Failure(NamedTuple):
    """An error of another process."""

    message: str  # one line
    trace: str
    expected: bool  # a file or a setting is to blame; else the process itself may be in a bad state

    def to_error(self) -> AnomalyCDError:
        """An error that says the same here; the trace comes with it, for the log file."""
        error = AnomalyCDError(self.message)
        error.__cause__ = RuntimeError(f"in another process:\n{self.trace}")
        return error


class Line(NamedTuple):
    """A line of another process's log."""

    level: int
    message: str


class Outcome(NamedTuple):
    """What a call gave."""

    value: Any = None
    failure: Failure | None = None
    lines: tuple[Line, ...] = ()


class _Recorder(logging.Handler):
    """Keeps what the present thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.lines.append(Line(record.levelno, record.getMessage()))


def call(work: Callable[[], Any]) -> Outcome:
    """Call `work` in the process that was asked to, and make whatever comes of it fit to be sent."""
    recorder = _Recorder()
    LOG.addHandler(recorder)
    LOG.setLevel(logging.INFO)
    try:
        return Outcome(work(), None, tuple(recorder.lines))
    except Exception as error:
        expected = isinstance(error, (AnomalyCDError, OSError))
        return Outcome(None, Failure(describe_error(error), traceback.format_exc(), expected), tuple(recorder.lines))
    finally:
        LOG.removeHandler(recorder)


def call_function(function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call a function with arguments, likewise."""
    return call(lambda: function(*arguments))


def relay(lines: Iterable[Line]) -> None:
    """Log the lines here; a warning that several processes give once."""
    for level, message in lines:
        if level >= logging.WARNING:
            warn_once(message)
        else:
            LOG.log(level, "%s", message)
