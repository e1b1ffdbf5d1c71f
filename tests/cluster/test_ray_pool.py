"""The pool on a stand-in for Ray: which workers it uses."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import run
from cluster import ray_pool
from cluster.environment import environment
from cluster.ray_pool import RayPool
from cluster.ray_worker import WorkerInfo
from cluster.remote_calls import Outcome
from cluster.resources import WorkerResources
from sam.flags import SamFlags
from sam.settings import engine_settings
from tests.scripts import DEMO_SAM
from utils import UsageError


class InstantRay:
    """A machine with two CPUs, on which every call has ended when it is asked for. A reference is a function."""

    exceptions = SimpleNamespace(RayActorError=RuntimeError, RayError=RuntimeError)

    def __init__(self, worker_info: WorkerInfo) -> None:
        self._worker_info = worker_info
        self.ended: list[Any] = []  # workers

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, **_: object) -> Callable[[Any], Any]:
        return lambda _: SimpleNamespace(remote=self._new_worker)

    def _new_worker(self) -> SimpleNamespace:
        return SimpleNamespace(start=SimpleNamespace(remote=lambda *_: lambda: Outcome(self._worker_info)))

    def wait(self, references: Sequence[Any], **_: object) -> tuple[Sequence[Any], list[Any]]:
        return references, []

    def get(self, reference: Callable[[], Outcome]) -> Outcome:
        return reference()

    def kill(self, worker: Any) -> None:
        self.ended.append(worker)


def pool_on(ray: InstantRay) -> RayPool:
    settings = engine_settings(SamFlags.of(run.parse_arguments(list(DEMO_SAM))), torch.device("cpu"))
    return RayPool(ray, WorkerResources(1, 0.0, 2), settings, [], lambda: None)  # type: ignore[arg-type]


def test_workers_with_the_settings_of_this_machine_are_used() -> None:
    messages = pool_on(InstantRay(WorkerInfo("twin", "node", "CPU", environment()))).wait()
    assert messages == [("worker 1", "node"), ("worker 2", "node")]


def test_workers_that_would_make_other_maps_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "LOOK_SECONDS", 0)
    other = environment() | {"MAX_REGION_FRACTION": 0.8}
    ray = InstantRay(WorkerInfo("stranger", "node", "CPU", other))
    pool = pool_on(ray)
    assert pool.wait() == pool.wait() == []
    with pytest.raises(
        UsageError,
        match="no worker can be started: stranger has a different MAX_REGION_FRACTION than this machine; its windows",
    ):
        pool.wait()
    assert len(ray.ended) == 4
