"""The resources of a worker on the machines of a cluster."""

import argparse
from typing import Any

import pytest

import config
from cli.flags import add_data_arguments
from cluster.connection import machines_with_room
from cluster.resources import WantedWorkers, WorkerResources, worker_resources
from runs.flags import RunFlags, add_run_arguments
from utils import UsageError


def parse(*flags: str) -> WantedWorkers:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    add_run_arguments(parser)
    wanted = RunFlags.of(parser.parse_args(flags)).workers
    assert wanted is not None
    return wanted


def resources_of(*flags: str, nodes: list[dict[str, float]]) -> WorkerResources:
    return worker_resources(parse("--ray", *flags), nodes)


HEAD, GPU_BOX, CPU_BOX = {"CPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}


@pytest.mark.parametrize(
    ("flags", "nodes", "expected", "room"),
    [
        ([], [GPU_BOX], WorkerResources(4, 1.0, None), 4),
        ([], [HEAD, GPU_BOX, GPU_BOX], WorkerResources(4, 1.0, None), 8),
        (["--ray-gpus-per-worker", "0.5"], [GPU_BOX], WorkerResources(2, 0.5, None), 8),
        (["--ray-gpus-per-worker", "0.6"], [GPU_BOX], WorkerResources(4, 0.6, None), 4),  # only one worker per GPU
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
def test_resources_of_a_worker(
    flags: list[str], nodes: list[dict[str, float]], expected: WorkerResources, room: int
) -> None:
    found = resources_of(*flags, nodes=nodes)
    assert found == expected
    assert found.room(nodes) == room


class GrowingCluster:
    """A cluster that grows by one machine per query."""

    def __init__(self, *joining: dict[str, float]) -> None:
        self._joining = joining
        self.queries = 0

    def nodes(self) -> list[dict[str, Any]]:
        self.queries += 1
        return [{"Alive": True, "Resources": resources} for resources in self._joining[: self.queries]]


@pytest.mark.parametrize(("flags", "queries"), [([], 3), (["--device", "cuda"], 4), (["--ray-workers", "2"], 3)])
def test_a_run_waits_for_the_first_usable_machine(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], queries: int
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    cluster = GrowingCluster({"CPU": 0.0}, {}, CPU_BOX, GPU_BOX)
    found = machines_with_room(cluster, parse("--ray", "auto", *flags), lambda: None)  # type: ignore[arg-type]
    assert len(found) == cluster.queries == queries


def test_a_local_run_does_not_wait() -> None:
    assert machines_with_room(GrowingCluster({}), parse("--ray"), lambda: None) == [{}]  # type: ignore[arg-type]


def test_without_gpus_workers_run_on_cpus_after_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert resources_of(nodes=[CPU_BOX]) == WorkerResources(1, 0.0, None)
    assert "no GPU in the cluster" in caplog.text


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--device", "cuda"], "no machine of the cluster has a GPU"),
        (["--device", "cuda:1"], "Ray chooses the GPUs"),
        (["--device", "cuda", "--ray-workers", "2"], "sets the number of CPU workers"),
    ],
)
def test_conflicting_flags_are_refused(flags: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        resources_of(*flags, nodes=[CPU_BOX])


def test_a_device_from_the_environment_counts_as_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.OVERRIDDEN, "DEFAULT_DEVICE", "cpu")
    assert resources_of(nodes=[GPU_BOX]) == WorkerResources(1, 0.0, None)
