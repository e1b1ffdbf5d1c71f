"""Starts a run as its flags ask: as a plan that is only printed, on a Ray cluster, or in this process."""

import argparse

from cluster.ray_pool import run_on_cluster
from cluster.resources import expected_device
from pipeline.dry_run import print_plan
from pipeline.local import Plan, run_here
from sam.devices import resolve_device
from sam.settings import engine_settings
from utils import LOG, Listing


def run_stages(name: str, listing: Listing, plan: Plan, args: argparse.Namespace) -> int:
    """Take every event through the stages that `plan` returns for it; returns the exit code.

    `name`: of the run, for its summary. `args`: with the flags of `add_run_arguments`. Raises UsageError where nothing
    can be run as asked.
    """
    if args.dry_run:
        device = expected_device(args) if args.ray is not None else resolve_device(args.device)
        return print_plan(name, listing, plan, engine_settings(args, device, fetch=False))
    if args.ray is not None:
        return run_on_cluster(name, listing, plan, args)
    settings = engine_settings(args, resolve_device(args.device))
    weights = settings.weights
    LOG.info("SAM %s: %s (%s) on %s", settings.model_type, weights.path, weights.origin, settings.device)
    return run_here(name, listing, plan, settings)
