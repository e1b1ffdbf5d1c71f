"""run.py, but it prints a line when a window is on the disk, and waits for a line on stdin before it continues."""

import sys

import run
from cli.script import run_script
from pipeline.window_store import ComputedWindow, WindowStore
from utils import Window

write = WindowStore.write


def write_and_wait(store: WindowStore, window: Window, computed: ComputedWindow) -> None:
    """Write a window, report it, and wait."""
    write(store, window, computed)
    print(store.folder.name, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    WindowStore.write = write_and_wait  # type: ignore[assignment, method-assign]
    run_script(run.main)
