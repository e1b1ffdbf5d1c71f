"""Runs a script: log on stderr, errors as one line, signals, exit codes."""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tqdm import tqdm

import config
from cli.process import prepare_process
from cli.provenance import versions
from utils import LOG, UsageError, describe_error, hide_secrets

# Variables that name a file of trusted certificates: of GDAL and curl, of requests, of Python. The first one counts.
CERTIFICATES = ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        """`number`: the signal's number."""
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _TerminalHandler(logging.Handler):
    """Writes one line per message to stderr, above the progress bar; tracebacks go to the log file only."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        tqdm.write(level + record.getMessage(), file=sys.stderr)


class _FileFormatter(logging.Formatter):
    """Formats a line of the log file, also a traceback, without the secrets of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_secrets(super().format(record))


@contextmanager
def keep_log(path: Path | None) -> Iterator[None]:
    """Append the full log to a file, if one is given. Raises UsageError if it cannot be opened."""
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); name another --log-file") from None
    handler.setFormatter(_FileFormatter("%(asctime)s %(levelname)s %(threadName)s %(message)s"))
    LOG.addHandler(handler)
    LOG.debug("%s", " ".join(sys.argv))
    LOG.debug("%s", ", ".join(f"{name} {version}" for name, version in versions().items()))
    try:
        yield
    except Exception:
        LOG.debug("traceback", exc_info=True)
        raise
    finally:
        LOG.removeHandler(handler)
        handler.close()


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` with its log on stderr, and exit with its result.

    Exit codes: 2 after a UsageError, 1 after any other error, 130 or 143 after a signal.
    """
    _use_utf8()
    _share_certificates()
    prepare_process()
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
    except Exception as error:  # outside of the events: a table that cannot be written, or a bug
        LOG.error("%s", describe_error(error))
        sys.exit(1)
    except Interrupted as error:
        LOG.error("interrupted (%s); finished work is kept, and the next run resumes from it", error)
        sys.exit(error.exit_code)


def _use_utf8() -> None:
    """Start the script anew in Python's UTF-8 mode if the locale has another encoding: GDAL takes paths in UTF-8."""
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"  # for processes that the script starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _share_certificates() -> None:
    """Let every library trust the certificates that one of them was told to: each has a variable of its own."""
    file = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    if file is not None and Path(file).is_file():
        os.environ.update({name: file for name in CERTIFICATES if not os.environ.get(name)})


def _interrupt(number: int, _: FrameType | None) -> None:
    for known in INTERRUPTS:
        signal.signal(known, _end_at_once)
    raise Interrupted(number)


def _end_at_once(number: int, _: FrameType | None) -> None:
    """End the process at a second signal: the first one waits for the computation or the file in hand."""
    os.write(2, f"\nended at once (second {signal.Signals(number).name}); finished work is kept\n".encode())
    os._exit(128 + number)  # files are renamed when they are complete, so nothing is half-written


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Defer SIGINT and SIGTERM: yields a function that raises Interrupted if one has arrived.

    Needed around libraries that fail when a signal handler raises inside them.
    """
    arrived: list[int] = []

    def defer(number: int, frame: FrameType | None) -> None:
        if arrived:
            _end_at_once(number, frame)
        arrived.append(number)

    before = {number: signal.signal(number, defer) for number in INTERRUPTS}

    def check() -> None:
        if arrived:
            _interrupt(arrived[0], None)

    try:
        yield check
    finally:
        if not arrived:
            for number, handler in before.items():
                signal.signal(number, handler)


def require_package(module: str, message: str) -> None:
    """Raise UsageError with this message if an optional package is missing."""
    try:
        importlib.import_module(module)
    except ImportError:
        raise UsageError(message) from None
