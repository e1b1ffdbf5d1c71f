"""Prints the plan of a run, or computes it on a Ray cluster or in this process."""

import argparse

import torch

from cli.progress import follow_run
from cli.script import deferred_interrupts
from cluster.connection import connected, machines_with_room
from cluster.dispatch import Dispatcher
from cluster.ray_pool import RayPool
from cluster.resources import expected_device, worker_resources
from pipeline.dry_run import print_plan
from pipeline.local import Plan, run_here
from sam.devices import resolve_device
from sam.settings import engine_settings
from utils import LOG, Listing


def run_stages(name: str, listing: Listing, plan: Plan, args: argparse.Namespace) -> int:
    """Run the stages that `plan` returns for each event; returns the exit code.

    `name`: name of the run, for its summary. `args`: parsed flags, including those of `add_run_arguments`. Raises
    UsageError if the run is impossible as requested.
    """
    if args.dry_run:
        device = expected_device(args) if args.ray is not None else resolve_device(args.device)
        code = print_plan(name, listing, plan, engine_settings(args, device, fetch=False))
        for line in listing.ignored():
            print(line)
        return code
    if args.ray is not None:
        return _run_on_cluster(name, listing, plan, args)
    settings = engine_settings(args, resolve_device(args.device))
    weights = settings.weights
    LOG.info("SAM %s: %s (%s) on %s", settings.model_type, weights.path, weights.origin, settings.device)
    return run_here(name, listing, plan, settings)


def _run_on_cluster(name: str, listing: Listing, plan: Plan, args: argparse.Namespace) -> int:
    with connected(args) as ray, deferred_interrupts() as check:
        nodes = machines_with_room(ray, args, check)
        resources = worker_resources(args, nodes)
        settings = engine_settings(args, torch.device("cuda:0" if resources.gpus else "cpu"))
        settings = settings._replace(execution=settings.execution._replace(host_threads=resources.cpus))
        outputs = {stage.folder.parent for event in listing.events[:1] for stage in plan(event)}
        for folder in outputs:
            folder.mkdir(parents=True, exist_ok=True)
        weights = settings.weights
        LOG.info(
            "SAM %s: %s (%s); workers with %s each, now room for %d",
            *(settings.model_type, weights.path, weights.origin, resources, resources.room(nodes)),
        )
        pool = RayPool(ray, resources, settings, [args.data_root, *outputs], check)
        with follow_run(name, listing, lambda event: sum(stage.count_windows() for stage in plan(event))) as progress:
            try:
                Dispatcher(pool, listing, plan, progress).run()
            finally:
                pool.close()
    return progress.summary.exit_code
