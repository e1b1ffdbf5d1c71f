"""Prepares a process: which memory glibc keeps for its next arrays, and how idle threads of torch wait."""

import ctypes
import os
from contextlib import suppress

# Parameters of glibc's mallopt, and their values. No result changes with them.
MALLOC_PARAMETERS = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD and
    -3: 2**31 - 1,  # M_MMAP_THRESHOLD: keep freed memory for the next array; else the system zeroes its pages again
    -8: 2,  # M_ARENA_MAX: by default, each thread has an arena, which keeps what the thread frees
}


def prepare_process() -> None:
    """Prepare this process for masks on a CPU, which then take about half the time; call it before torch is loaded.

    Idle threads of torch sleep instead of spinning, unless OMP_WAIT_POLICY is set. Without glibc, no memory is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOC_PARAMETERS.items():
            mallopt(parameter, value)
