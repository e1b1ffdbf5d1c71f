"""Chooses the torch device and the batch sizes for it."""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from threading import Barrier, Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

import config
from sam.execution import PRECISIONS
from utils import LOG, EventError, UsageError

Items = TypeVar("Items", Sequence[Any], Tensor)
Result = TypeVar("Result")

# Memory of the batches that are computed at the same time: at most 1 / FREE_SHARE of what is free; of each: at most
# LARGEST_BATCH_BYTES. This keeps a GPU busy; on a CPU larger batches do not fit the caches and are slower.
FREE_SHARE = 4
LARGEST_BATCH_BYTES = {"cuda": 2 << 30, "cpu": 160 << 20}


def resolve_device(name: str | None) -> torch.device:
    """Return the torch device that the user named, or the default one.

    Without a GPU, the default falls back to the CPU with a warning. Raises UsageError for a device that was named (by
    flag or environment) and does not exist, and for a device other than cuda and cpu.
    """
    named = name or ("DEFAULT_DEVICE" in config.OVERRIDDEN and config.DEFAULT_DEVICE) or None
    wanted = named or config.DEFAULT_DEVICE
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UsageError(f"--device {wanted}: no such device; use cuda:0 (or another number), or cpu") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"--device {wanted}: only cuda and cpu are supported")
    if 0 <= (device.index or 0) < torch.cuda.device_count():  # torch reads cuda:1000 as a negative index
        return device
    if named is None:
        LOG.warning("no GPU for %s: running on the CPU, which takes many times longer", device)
        return torch.device("cpu")
    raise UsageError(f"--device {wanted}: not found; torch finds {torch.cuda.device_count()} GPU(s); use --device cpu")


def batch_size(device: torch.device, item_bytes: int, batches: int = 1) -> int:
    """Return how many items of `item_bytes` bytes a batch should hold on the device now, at least 1.

    `batches`: that are computed at the same time.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        # Total memory instead of free memory, so that the same command always uses the same batch size.
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(free // FREE_SHARE // batches, LARGEST_BATCH_BYTES[device.type]) // item_bytes)


def release_freed_memory(device: torch.device) -> None:
    """Give memory that was freed back to the system, if the device is the CPU; does nothing without glibc.

    glibc keeps it in pieces that are often too small for the next large array. Takes some 15 ms.
    """
    if device.type == "cpu":
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def decoding_threads(device_type: str) -> int:
    """Return how many batches of points are decoded at the same time."""
    return torch.get_num_threads() if device_type == "cpu" else 1


def single_threaded_pool() -> ThreadPoolExecutor:
    """Return a pool of as many threads as torch uses. In each of them, torch uses one; elsewhere, it still uses all."""
    threads = torch.get_num_threads()
    started = Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread takes over the number that was set last
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, "single-threaded", start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)
    return pool


class Batches:
    """Batched execution on a device; halves the batch size permanently when the device runs out of memory."""

    def __init__(self, size: int, flag: str) -> None:
        self.size = size
        self._flag = flag
        self._warned = False
        self._halving = Lock()

    def run(self, work: Callable[[Items], Result], items: Items) -> Iterator[Result]:
        """Yield `work(batch)` for each batch of items, in order. Raises EventError if not even one item fits."""
        start = 0
        while start < len(items):
            size = self.size
            try:
                result = work(items[start : start + size])
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                with self._halving:
                    if self.size >= size:  # else another thread did
                        self._halve()
                continue
            start += size
            yield result

    def _halve(self) -> None:
        if self.size == 1:
            raise EventError("out of device memory at batch size 1; use smaller windows or another device")
        if not self._warned:
            LOG.warning("out of device memory with %s %d: halving it until a batch fits", self._flag, self.size)
        self._warned = True
        self.size //= 2
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Let torch compute with a precision, a key of PRECISIONS, in a block."""
    return torch.autocast(device.type, getattr(torch, PRECISIONS[precision]), enabled=precision != "fp32")
