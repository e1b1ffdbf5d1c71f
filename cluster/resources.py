"""Determines the resources of each worker of a cluster from the flags and the machines."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import config
from utils import LOG, UsageError


class WantedWorkers(NamedTuple):
    """The cluster and the workers that the command line asks for."""

    address: str  # of a cluster; `local`: one that is started on this machine; `auto`: the one of this machine
    device: str | None  # torch device named on the command line
    number: int | None  # of workers, on CPUs; None: not named
    gpus: float  # share of a GPU per worker
    cpus: int | None  # per worker; None: the machine's, shared by its workers

    @property
    def named_device(self) -> str | None:
        """The device named by the flag or the environment; None if neither names one."""
        return self.device or config.OVERRIDDEN.get("DEFAULT_DEVICE")

    @property
    def on_cpus(self) -> bool:
        """Whether workers compute on CPUs even if there are GPUs."""
        return self.number is not None or self.named_device == "cpu"

    @property
    def device_type(self) -> str:
        """The type of the device that workers will use, according to the flags alone."""
        return "cpu" if self.on_cpus else "cuda"


class WorkerResources(NamedTuple):
    """The resources of each worker, and the greatest number of workers."""

    cpus: int
    gpus: float  # 0: workers compute on the CPU
    max_workers: int | None  # None: as many as fit on the machines

    def __str__(self) -> str:
        """Text for messages."""
        cpus = f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"
        return f"{self.gpus:g} GPU and {cpus}" if self.gpus else cpus

    def room(self, nodes: Sequence[dict[str, float]]) -> int:
        """Return the number of workers that fit on machines with these resources."""
        room = 0
        for node in nodes:
            on_cpus = int(node.get("CPU", 0) // self.cpus)
            room += min(on_cpus, on_gpus(node, self.gpus)) if self.gpus else on_cpus
        return room if self.max_workers is None else min(room, self.max_workers)


def on_gpus(node: dict[str, float], share: float) -> int:
    """Return the number of workers that fit on the GPUs of a machine; a worker never spans two GPUs."""
    return int(node.get("GPU", 0)) * math.floor(1 / share)


def worker_resources(wanted: WantedWorkers, nodes: Sequence[dict[str, float]]) -> WorkerResources:
    """Return the resources of each worker. Raises UsageError if flags and machines do not match.

    `nodes`: the resources of the machines, as Ray names them.
    """
    named = wanted.named_device
    if named is not None and named not in ("cpu", "cuda", "cuda:0"):
        raise UsageError(f"--device {named}: with --ray, Ray chooses the GPUs; use cuda or cpu")
    if wanted.number is not None and named is not None and named != "cpu":
        raise UsageError(
            "--ray-workers sets the number of CPU workers; omit --device, or omit --ray-workers for one worker per GPU"
        )
    if wanted.on_cpus:
        return _on_cpus(wanted, nodes)
    if any(on_gpus(node, wanted.gpus) for node in nodes):
        return _on_gpus(wanted, nodes)
    if named is not None:
        raise UsageError(f"--device {named}: no machine of the cluster has a GPU; use --device cpu")
    LOG.warning("no GPU in the cluster: running on CPUs, which takes many times longer")
    return _on_cpus(wanted, nodes)


def _on_gpus(wanted: WantedWorkers, nodes: Sequence[dict[str, float]]) -> WorkerResources:
    """Return the resources for one worker per GPU, or per share of one.

    The machine with the fewest CPUs per worker sets the number of CPUs.
    """
    shared = min(node.get("CPU", 0) // on_gpus(node, wanted.gpus) for node in nodes if on_gpus(node, wanted.gpus))
    return WorkerResources(wanted.cpus or max(int(shared), 1), wanted.gpus, None)


def _on_cpus(wanted: WantedWorkers, nodes: Sequence[dict[str, float]]) -> WorkerResources:
    """Return the resources for workers on CPUs.

    If only the number of workers is given, they share the CPUs; no worker spans two machines.
    """
    cpus = wanted.cpus
    if cpus is None and wanted.number is not None:
        by_machine = [node["CPU"] for node in nodes if node.get("CPU", 0)]
        cpus = max(int(min([sum(by_machine) // wanted.number, *by_machine])), 1)
    return WorkerResources(cpus or 1, 0.0, wanted.number)
