"""Measures time and peak memory of a piece of work, and describes the environment."""

import csv
import ctypes
import gc
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from benchmarks.blobs import drawing_seconds
from rasters.raster import Raster
from utils import Window

Result = TypeVar("Result")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Measurement(NamedTuple):
    """Time and memory of a piece of work."""

    seconds: float
    host_bytes: int  # peak beyond the memory in use before: model and libraries
    device_bytes: int  # peak, the model's weights included; 0 on a CPU


def measure(device: str, work: Callable[[], Result]) -> tuple[Result, Measurement]:
    """Run the work, wait for the device, and measure time and memory. Linux with glibc only.

    On a GPU, the work runs once before, as its first run loads the kernels. The time in which threads draw blobs is not
    counted, on a GPU that of the CPU.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        work()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else memory freed earlier would count as in use before
    CLEAR.write_text("5")  # resets the peak
    before, drawing, started = _status("VmRSS"), drawing_seconds(), time.perf_counter()
    result = work()
    if on_gpu:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    drawn = max((of_thread - drawing.get(thread, 0) for thread, of_thread in drawing_seconds().items()), default=0)
    peak = _status("VmHWM") - before
    return result, Measurement(seconds - drawn, peak, torch.cuda.max_memory_allocated(device) if on_gpu else 0)


def _status(name: str) -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def describe_environment(device: str) -> dict[str, str]:
    """Return device, versions and commit for a row of results."""
    on_gpu = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() or "unknown",
        "device": name,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "numpy")},
    }


def read_whole(raster: Raster) -> np.ndarray:
    """Read all pixels of a raster."""
    height, width = raster.shape
    return raster.read(Window(0, 0, width, height))


def append_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Append rows to a CSV; a new file begins with the column names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        if is_new:
            table.writeheader()
        table.writerows(rows)
