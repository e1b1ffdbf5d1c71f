"""Keeps two runs from working on one event's outputs at the same time."""

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
    """Hold the lock of an event's output folder, which is made.

    The system releases it when its process ends, however it ends: a lock whose owner is dead is there to be taken.
    Raises EventBusyError, which says who has it, where another process or thread does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    file = _locked(path)
    try:
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: nobody else can have taken this file
        os.close(file)
        _remove_if_empty(folder)


def _locked(path: Path) -> int:
    """An open file at `path` whose lock is ours."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 1000).decode(errors="replace")
            os.close(file)
            raise EventBusyError(f"{path.parent}: is being worked on by {owner or 'another process'}") from None
        except OSError:
            os.close(file)
            raise
        # Its last owner may have removed the file between our opening and locking it.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            return file
        os.close(file)


def _remove_if_empty(folder: Path) -> None:
    """Leave no empty folder for an event that failed before it had any output."""
    if not any(folder.iterdir()):
        folder.rmdir()
