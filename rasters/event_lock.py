"""Locks the outputs of an event, so that two runs never write them at the same time."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils import EventBusyError

LOCK_NAME = ".lock"


@contextmanager
def event_lock(folder: Path) -> Iterator[None]:
    """Create an event's output folder and hold its lock; at the end, remove the folder if it is empty.

    The system releases the lock when the process ends, also after kill -9. Raises EventBusyError, which names the
    owner, if another process or thread holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    file = _locked(path)
    try:
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # still locked: no other process can hold this file
        os.close(file)
        _remove_if_empty(folder)


def _locked(path: Path) -> int:
    """Open the file at `path`, lock it, and return its descriptor."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 1000).decode(errors="replace")
            os.close(file)
            raise EventBusyError(f"{path.parent}: is locked by {owner or 'another process'}") from None
        except OSError:
            os.close(file)
            raise
        # The previous owner may have removed the file between `open` and `flock`.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            return file
        os.close(file)


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder if it holds no output."""
    if not any(folder.iterdir()):
        folder.rmdir()
