"""Faults of a cluster, for tests: Python imports this module in every process that has this folder on its path.

ANOMALYCD_TEST_FAULT is the fault's name, ANOMALYCD_TEST_MARKS a folder in which processes record their calls as files.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

FAULT = os.environ.get("ANOMALYCD_TEST_FAULT", "")
MARKS = Path(os.environ.get("ANOMALYCD_TEST_MARKS", "."))


def first(name: str) -> bool:
    """Whether this is the first call with this name in any process."""
    try:
        (MARKS / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def call_before(owner: type, method: str, act: Callable[..., object]) -> None:
    """Call `act` with the same arguments before each call of a method."""
    original = getattr(owner, method)

    def replacement(self: Any, *arguments: Any, **named: Any) -> Any:
        act(self, *arguments, **named)
        return original(self, *arguments, **named)

    setattr(owner, method, replacement)


def kill_worker_and_node(*_: Any, **__: Any) -> None:
    if first("worker_killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if len(list(MARKS.iterdir())) == 4 and first("node_killed"):  # after three more windows
        os.kill(os.getppid(), signal.SIGKILL)  # the parent of a worker is its machine's raylet
    (MARKS / f"written_{len(list(MARKS.iterdir()))}").touch()


def kill_driver(*_: Any, **__: Any) -> None:
    (MARKS / f"answer_{len(list(MARKS.iterdir()))}").touch()
    if len(list(MARKS.iterdir())) == 4:
        os.kill(os.getpid(), signal.SIGKILL)


def interrupt_driver(*_: Any, **__: Any) -> None:
    (MARKS / f"answer_{len(list(MARKS.iterdir()))}").touch()
    if len(list(MARKS.iterdir())) == 2:  # with a delay, so that the driver is waiting
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()


def count_encoded(_: Any, images: Any) -> None:
    with open(MARKS / f"encoded_{os.getpid()}", "a") as file:
        file.write("x" * len(images))


# Fault: module, class, method, function called before the method.
FAULTS: dict[str, tuple[str, str, str, Callable[..., object]]] = {
    "kill_worker_and_node": ("pipeline.window_store", "WindowStore", "write", kill_worker_and_node),
    "kill_driver": ("pipeline.dispatch", "Dispatcher", "_computed", kill_driver),
    "interrupt_driver": ("pipeline.dispatch", "Dispatcher", "_computed", interrupt_driver),
    "count_encoded": ("sam.engine", "SamEngine", "_encode_batch", count_encoded),
}


class Patcher(importlib.abc.MetaPathFinder):
    """Patches a class when its module is imported, or makes an import fail."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if FAULT == "no_ray" and name == "ray":
            raise ImportError("No module named 'ray'")
        if FAULT not in FAULTS or name != FAULTS[FAULT][0]:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def patched(module: ModuleType) -> None:
            execute(module)
            _, owner, method, act = FAULTS[FAULT]
            call_before(getattr(module, owner), method, act)

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Patcher())
