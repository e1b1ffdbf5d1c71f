"""devices.py: which device is taken, and how much is put on it at once."""

import pytest
import torch

import config
from devices import resolve_device
from utils import UsageError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """How many GPUs torch sees."""
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
def test_devices_that_are_there(gpus: int, name: str | None, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_device(name) == torch.device(expected)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("gpus", "name", "problem"),
    [
        (0, "cuda:0", "--device cuda:0: not there, torch sees 0 GPU"),
        (0, "cuda", "--device cuda: not there"),
        (1, "cuda:1", "--device cuda:1: not there, torch sees 1 GPU"),
        (1, "cuda:1000", "--device cuda:1000: not there"),
        (1, "garbage", "--device garbage: no such device"),
        (1, "cuda:-1", "--device cuda:-1: no such device"),
        (1, "mps", "only cuda and cpu are supported"),
    ],
    indirect=["gpus"],
)
def test_named_devices_that_are_not_there(gpus: int, name: str, problem: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve_device(name)
    assert problem in str(refused.value)


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_a_device_from_the_environment_is_a_named_one(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_DEVICE", "cuda:3")
    monkeypatch.setitem(config.OVERRIDDEN, "DEFAULT_DEVICE", "cuda:3")
    with pytest.raises(UsageError, match="cuda:3: not there"):
        resolve_device(None)
