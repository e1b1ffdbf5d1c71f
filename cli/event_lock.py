"""Locks the outputs of an event, so that two runs never write them at the same time."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils import EventBusyError

LOCK_NAME = ".lock"
ATTEMPTS = 1000  # to create and lock a file whose folder other processes remove


@contextmanager
def event_lock(folder: Path) -> Iterator[None]:
    """Create an event's output folder and hold its lock; at the end, remove the folder if it is empty.

    The system releases the lock when the process ends, also after kill -9. Raises EventBusyError, which names the
    owner, if another process or thread holds the lock.
    """
    path = folder / LOCK_NAME
    file = _locked(path)
    try:
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}".encode())
        yield
    finally:
        with suppress(OSError):  # an error here would hide that of the block
            path.unlink(missing_ok=True)  # still locked: no other process can hold this file
        os.close(file)
        with suppress(OSError):  # it holds outputs, or another process has begun to use it
            folder.rmdir()


def _locked(path: Path) -> int:
    """Open the file at `path`, lock it, and return its descriptor. Its folder is created."""
    for _ in range(ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):  # another process has just removed the folder
            if path.parent.is_file():
                raise
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
            # The previous owner removed the file between `open` and `flock`.
            os.close(file)
        except BlockingIOError:
            owner = os.read(file, 1000).decode(errors="replace")
            os.close(file)
            raise EventBusyError(f"{path.parent}: is locked by {owner or 'another process'}") from None
        except OSError:
            os.close(file)
            raise
    raise EventBusyError(f"{path.parent}: cannot be locked, other processes keep removing it")


def _is_at(file: int, path: Path) -> bool:
    """Return whether an open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
