"""devices.py: selection of the device, and batch sizes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import config
from sam.devices import LARGEST_BATCH_BYTES, Batches, batch_size, resolve_device, single_threaded_pool
from tests.helpers import property_test
from utils import EventError, UsageError


# --- Devices ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """The number of GPUs that torch reports."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_without_a_gpu_the_default_falls_back_with_a_warning(gpus: int, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_device(None) == torch.device("cpu")
    (warning,) = caplog.messages
    assert warning.startswith("no GPU for cuda:0: running on the CPU")


@pytest.mark.parametrize(
    ("gpus", "name", "expected"),
    [(1, None, "cuda:0"), (1, "cuda", "cuda"), (2, "cuda:1", "cuda:1"), (1, "cpu", "cpu"), (0, "cpu", "cpu")],
    indirect=["gpus"],
)
def test_existing_devices_are_resolved(
    gpus: int, name: str | None, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert resolve_device(name) == torch.device(expected)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("gpus", "name", "problem"),
    [
        (0, "cuda:0", "--device cuda:0: not found; torch finds 0 GPU"),
        (0, "cuda", "--device cuda: not found"),
        (1, "cuda:1", "--device cuda:1: not found; torch finds 1 GPU"),
        (1, "cuda:1000", "--device cuda:1000: not found"),
        (1, "garbage", "--device garbage: no such device"),
        (1, "cuda:-1", "--device cuda:-1: no such device"),
        (1, "mps", "only cuda and cpu are supported"),
    ],
    indirect=["gpus"],
)
def test_missing_devices_are_refused(gpus: int, name: str, problem: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve_device(name)
    assert problem in str(refused.value)


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_a_device_from_the_environment_counts_as_a_flag(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_DEVICE", "cuda:3")
    monkeypatch.setitem(config.OVERRIDDEN, "DEFAULT_DEVICE", "cuda:3")
    with pytest.raises(UsageError, match="cuda:3: not found"):
        resolve_device(None)


# --- Batches ---------------------------------------------------------------------------------------------------------
OUT_OF_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you ..."
    ),
}


class LimitedDevice:
    """A device with room for a limited number of items; records the sizes of the batches."""

    def __init__(self, room: int, error: RuntimeError = OUT_OF_MEMORY["cuda"]) -> None:
        self.tried: list[int] = []
        self._room = room
        self._error = error

    def work(self, batch: Sequence[int]) -> list[int]:
        self.tried.append(len(batch))
        if len(batch) > self._room:
            raise self._error
        return [10 * item for item in batch]


def test_batches_have_the_given_size(caplog: pytest.LogCaptureFixture) -> None:
    device = LimitedDevice(room=4)
    results = list(Batches(4, "--points-per-batch").run(device.work, range(10)))
    assert results == [[0, 10, 20, 30], [40, 50, 60, 70], [80, 90]]
    assert not caplog.messages


def test_no_items_give_no_batches() -> None:
    assert list(Batches(4, "--points-per-batch").run(LimitedDevice(room=0).work, [])) == []


def test_a_tensor_is_split_along_its_first_axis() -> None:
    parts = list(Batches(2, "--points-per-batch").run(lambda batch: batch, torch.arange(6).view(3, 2)))
    assert [part.tolist() for part in parts] == [[[0, 1], [2, 3]], [[4, 5]]]


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_batch_size_is_halved_permanently_when_out_of_memory(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    device, batches = LimitedDevice(3, OUT_OF_MEMORY[kind]), Batches(9, "--points-per-batch")
    assert list(batches.run(device.work, range(5))) == [[0, 10], [20, 30], [40]]
    assert device.tried == [5, 4, 2, 2, 1]
    assert list(batches.run(device.work, range(3))) == [[0, 10], [20]]  # the next window starts with this size
    (warning,) = caplog.messages  # only one, for several retries
    assert warning == "out of device memory with --points-per-batch 9: halving it until a batch fits"


def test_batch_size_is_halved_in_the_middle_of_a_run() -> None:
    rooms = iter([4, 4, 1, 1, 1, 1, 1, 1, 1])

    def work(batch: Sequence[int]) -> list[int]:
        return LimitedDevice(next(rooms)).work(batch)

    results = list(Batches(4, "--points-per-batch").run(work, range(11)))
    assert results == [[0, 10, 20, 30], [40, 50, 60, 70], [80], [90], [100]]


def test_threads_that_run_out_of_memory_together_halve_the_size_once() -> None:
    together = Barrier(2)

    def work(batch: Sequence[int]) -> list[int]:
        if len(batch) == 4:
            together.wait()
        return LimitedDevice(room=2).work(batch)

    batches = Batches(4, "--points-per-batch")
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda items: list(batches.run(work, items)), [range(4), range(4, 8)]))
    assert results == [[[0, 10], [20, 30]], [[40, 50], [60, 70]]]
    assert batches.size == 2


def test_threads_of_a_pool_use_one_thread_of_torch_and_others_all() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with single_threaded_pool() as pool:
            together = Barrier(2)
            counts = list(pool.map(lambda _: together.wait() < 2 and torch.get_num_threads(), range(2)))
        with ThreadPoolExecutor(1) as later:
            counts_elsewhere = [torch.get_num_threads(), later.submit(_threads_of_a_product).result()]
    finally:
        torch.set_num_threads(before)
    assert counts == [1, 1]
    assert counts_elsewhere == [2, 2]


def _threads_of_a_product() -> int:
    torch.ones(2, 2) @ torch.ones(2, 2)
    return torch.get_num_threads()


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_no_memory_for_a_single_item_is_an_event_error(kind: str) -> None:
    device = LimitedDevice(0, OUT_OF_MEMORY[kind])
    with pytest.raises(EventError, match="out of device memory at batch size 1"):
        list(Batches(4, "--points-per-batch").run(device.work, range(4)))
    assert device.tried == [4, 2, 1]


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("no"), KeyError()]
)
def test_other_errors_are_raised(error: Exception) -> None:
    def work(_: Sequence[int]) -> None:
        raise error

    batches = Batches(4, "--points-per-batch")
    with pytest.raises(type(error)) as raised:
        list(batches.run(work, range(4)))
    assert raised.value is error
    assert batches.size == 4


@property_test
@given(st.lists(st.integers(), max_size=40), st.integers(1, 50), st.integers(1, 50))
def test_every_item_is_processed_once(items: list[int], size: int, room: int) -> None:
    device, batches = LimitedDevice(room), Batches(size, "--points-per-batch")
    assert [result for batch in batches.run(device.work, items) for result in batch] == [10 * item for item in items]
    assert 1 <= batches.size <= size


# --- Sizes of batches ------------------------------------------------------------------------------------------------
GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "item", "size"),
    [
        (80 * GIB, GIB, 2),  # the maximum batch
        (4 * GIB, GIB // 8, 8),  # a quarter of 4 GiB
        (GIB, GIB, 1),  # at least one
    ],
)
def test_batch_size_of_a_gpu(monkeypatch: pytest.MonkeyPatch, free: int, item: int, size: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * GIB))
    assert batch_size(torch.device("cuda:0"), item) == size


def test_batch_size_of_a_cpu() -> None:
    assert batch_size(torch.device("cpu"), 1 << 20) == LARGEST_BATCH_BYTES["cpu"] >> 20
    assert batch_size(torch.device("cpu"), GIB) == 1
