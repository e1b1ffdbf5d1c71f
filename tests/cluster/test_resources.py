"""What a worker may use of the cluster's machines."""

import argparse
from typing import Any

import pytest

import config
from cluster.connection import machines_with_room
from cluster.flags import add_ray_arguments
from cluster.resources import WorkerResources, worker_resources
from utils import UsageError


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device")
    add_ray_arguments(parser)
    return parser.parse_args(flags)


def shape(*flags: str, nodes: list[dict[str, float]]) -> WorkerResources:
    return worker_resources(parse("--ray", *flags), nodes)


HEAD, GPU_BOX, CPU_BOX = {"CPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}


@pytest.mark.parametrize(
    ("flags", "nodes", "expected", "room"),
    [
        ([], [GPU_BOX], WorkerResources(4, 1.0, None), 4),
        ([], [HEAD, GPU_BOX, GPU_BOX], WorkerResources(4, 1.0, None), 8),
        (["--ray-gpus-per-worker", "0.5"], [GPU_BOX], WorkerResources(2, 0.5, None), 8),
        (["--ray-gpus-per-worker", "0.6"], [GPU_BOX], WorkerResources(4, 0.6, None), 4),  # none on two of them
        (["--ray-cpus-per-worker", "8"], [GPU_BOX], WorkerResources(8, 1.0, None), 2),
        (["--device", "cuda"], [GPU_BOX, {"CPU": 2.0, "GPU": 1.0}], WorkerResources(2, 1.0, None), 5),
        (["--device", "cpu"], [GPU_BOX, CPU_BOX], WorkerResources(1, 0.0, None), 24),
        (["--ray-cpus-per-worker", "3"], [CPU_BOX], WorkerResources(3, 0.0, None), 2),
        (["--ray-workers", "3"], [GPU_BOX], WorkerResources(5, 0.0, 3), 3),
        (["--ray-workers", "2"], [HEAD, CPU_BOX], WorkerResources(2, 0.0, 2), 2),
        (["--ray-workers", "100"], [HEAD, CPU_BOX], WorkerResources(1, 0.0, 100), 10),
        (["--ray-workers", "2", "--ray-cpus-per-worker", "4"], [CPU_BOX], WorkerResources(4, 0.0, 2), 2),
    ],
)
def test_workers_share_what_the_machines_have(
    flags: list[str], nodes: list[dict[str, float]], expected: WorkerResources, room: int
) -> None:
    found = shape(*flags, nodes=nodes)
    assert found == expected
    assert found.room(nodes) == room


class Growing:
    """A cluster that machines join, one for each look at it."""

    def __init__(self, *joining: dict[str, float]) -> None:
        self._joining = joining
        self.looks = 0

    def nodes(self) -> list[dict[str, Any]]:
        self.looks += 1
        return [{"Alive": True, "Resources": resources} for resources in self._joining[: self.looks]]


@pytest.mark.parametrize(("flags", "looks"), [([], 3), (["--device", "cuda"], 4), (["--ray-workers", "2"], 3)])
def test_a_run_waits_for_the_first_machine_that_it_can_use(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], looks: int
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    growing = Growing({"CPU": 0.0}, {}, CPU_BOX, GPU_BOX)
    found = machines_with_room(growing, parse("--ray", "auto", *flags), lambda: None)  # type: ignore[arg-type]
    assert len(found) == growing.looks == looks


def test_a_run_on_this_machine_does_not_wait() -> None:
    assert machines_with_room(Growing({}), parse("--ray"), lambda: None) == [{}]  # type: ignore[arg-type]


def test_without_gpus_the_workers_are_on_cpus_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert shape(nodes=[CPU_BOX]) == WorkerResources(1, 0.0, None)
    assert "no GPU in the cluster" in caplog.text


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--device", "cuda"], "no machine of the cluster has a GPU"),
        (["--device", "cuda:1"], "Ray chooses the GPUs"),
        (["--device", "cuda", "--ray-workers", "2"], "they are on CPUs"),
    ],
)
def test_flags_that_do_not_agree_are_refused(flags: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        shape(*flags, nodes=[CPU_BOX])


def test_a_device_from_the_environment_counts_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.OVERRIDDEN, "DEFAULT_DEVICE", "cpu")
    assert shape(nodes=[GPU_BOX]) == WorkerResources(1, 0.0, None)
