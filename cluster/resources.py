"""The command line's flags about a cluster, and the workers that they ask for."""

import argparse
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

import config
from utils import LOG, UsageError


class WorkerResources(NamedTuple):
    """What the workers take."""

    cpus: int  # each
    gpus: float  # each; 0: they compute on the CPU
    most: int | None  # workers; None: as many as there is room for

    def __str__(self) -> str:
        """How it is said."""
        cpus = f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"
        return f"{self.gpus:g} GPU and {cpus}" if self.gpus else cpus

    def room(self, nodes: Sequence[dict[str, float]]) -> int:
        """How many workers there is room for. `nodes`: the resources of the machines."""
        room = 0
        for node in nodes:
            on_cpus = int(node.get("CPU", 0) // self.cpus)
            room += min(on_cpus, on_gpus(node, self.gpus)) if self.gpus else on_cpus
        return room if self.most is None else min(room, self.most)


def on_gpus(node: dict[str, float], share: float) -> int:
    """How many workers the GPUs of a machine hold, none of them on two."""
    return int(node.get("GPU", 0)) * math.floor(1 / share)


def worker_shape(args: argparse.Namespace, nodes: Sequence[dict[str, float]]) -> WorkerResources:
    """What the workers take, from the flags and what the machines have. Raises UsageError where these do not agree."""
    named, on_cpus = named_device(args), wants_cpu(args)
    if named is not None and named not in ("cpu", "cuda", "cuda:0"):
        raise UsageError(f"--device {named}: with --ray, Ray chooses the GPUs; use cuda or cpu")
    if args.ray_workers is not None and named is not None and named != "cpu":
        raise UsageError("--ray-workers: they are on CPUs; leave --device out, or this, for one on each GPU")
    gpus = args.ray_gpus_per_worker
    with_gpus = [node for node in nodes if on_gpus(node, gpus)]
    if not on_cpus and with_gpus:
        shared = min(node.get("CPU", 0) // on_gpus(node, gpus) for node in with_gpus)
        return WorkerResources(args.ray_cpus_per_worker or max(int(shared), 1), gpus, None)
    if not on_cpus:
        if named is not None:
            raise UsageError(f"--device {named}: no machine of the cluster has a GPU; use --device cpu")
        LOG.warning("no GPU in the cluster: running on CPUs, which takes many times longer")
    cpus = args.ray_cpus_per_worker
    if cpus is None and args.ray_workers is not None:
        each_could = sum(node.get("CPU", 0) for node in nodes) // args.ray_workers
        cpus = max(int(min(each_could, *(node.get("CPU", 0) for node in nodes if node.get("CPU", 0)))), 1)
    return WorkerResources(cpus or 1, 0.0, args.ray_workers)


def expected_device(args: argparse.Namespace) -> torch.device:
    """The kind of device that workers will compute on, as far as the flags alone tell."""
    return torch.device("cpu" if wants_cpu(args) else "cuda")


def wants_cpu(args: argparse.Namespace) -> bool:
    """Whether workers are to compute on CPUs, GPUs or not."""
    return args.ray_workers is not None or named_device(args) == "cpu"


def named_device(args: argparse.Namespace) -> str | None:
    """The device that was named, by flag or environment."""
    return args.device or config.OVERRIDDEN.get("DEFAULT_DEVICE")
