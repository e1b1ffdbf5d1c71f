"""compilation.py: a function that threads share is compiled once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch

from sam.compilation import compile_once

THREADS = 4


def test_threads_wait_for_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    first_ended: list[int] = []

    def compile_nothing(function: Callable[..., Any], options: object) -> Callable[..., Any]:
        def call(number: int) -> object:
            begun.append(len(first_ended))
            sum(range(3_000_000))  # other threads run meanwhile
            first_ended.append(number)
            return function(number)

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    together = Barrier(THREADS)
    square = compile_once(lambda number: number * number, torch.device("cpu"))

    def ask(number: int) -> object:
        together.wait()
        return square(number)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(ask, range(THREADS))) == [0, 1, 4, 9]
    assert begun.count(0) == 1


def test_a_first_call_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, options: function)
    inverse = compile_once(lambda number: 1 / number, torch.device("cpu"))
    with pytest.raises(ZeroDivisionError):
        inverse(0)
    assert inverse(2) == 0.5
