"""Compiles functions of a SAM that several threads call at the same time."""

from collections.abc import Callable
from threading import Lock
from typing import Any

import torch


def compile_once(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Return a function or module, compiled with `torch.compile` at its first call; other threads wait for that call.

    On a CPU, all of it becomes C++ that does not hold Python's lock, so that threads run it at the same time.
    """
    call = torch.compile(function, options={"cpp_wrapper": True} if device.type == "cpu" else None)
    first_call, ready = Lock(), False

    def call_compiled(*arguments: Any) -> Any:
        nonlocal ready
        if ready:
            return call(*arguments)
        with first_call:  # threads that begin together would each compile
            result = call(*arguments)
            ready = True
        return result

    return call_compiled
