"""Calls functions in other processes and returns their value or error with the log lines."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from pipeline.dispatch import Failure
from utils import LOG, AnomalyCDError, warn_once


class Line(NamedTuple):
    """A line of another process's log."""

    level: int
    message: str


class Outcome(NamedTuple):
    """The value or the error of a call, and its log lines."""

    value: Any = None
    failure: Failure | None = None
    lines: tuple[Line, ...] = ()


class _Recorder(logging.Handler):
    """Records the log lines of the current thread, and those of helper threads, such as readers of images."""

    calling: ClassVar[set[int]] = set()  # identifiers of all threads that are in a call

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        # Which call a helper thread works for is not known: its line goes to one of them.
        is_helper = record.thread not in self.calling and vars(record).setdefault("recorder", self) is self
        if is_helper or record.thread == self._thread:
            self.lines.append(Line(record.levelno, record.getMessage()))


def call(work: Callable[[], Any]) -> Outcome:
    """Call `work` and return its outcome, which can be sent to another process."""
    recorder = _Recorder()
    _Recorder.calling.add(threading.get_ident())
    LOG.addHandler(recorder)
    LOG.setLevel(logging.INFO)
    try:
        return Outcome(work(), None, tuple(recorder.lines))
    except Exception as error:
        by_file_or_setting = isinstance(error, (AnomalyCDError, OSError))
        return Outcome(None, Failure.of(error, ends_worker=not by_file_or_setting), tuple(recorder.lines))
    finally:
        LOG.removeHandler(recorder)
        _Recorder.calling.discard(threading.get_ident())


def call_function(function: Callable[..., Any], *arguments: Any) -> Outcome:
    """Call a function with arguments; see `call`."""
    return call(lambda: function(*arguments))


def relay(lines: Iterable[Line]) -> None:
    """Log the lines in this process; the same warning from several processes is logged once."""
    for level, message in lines:
        if level >= logging.WARNING:
            warn_once(message)
        else:
            LOG.log(level, "%s", message)
