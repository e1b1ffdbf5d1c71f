"""Runs the stages of events on a Ray cluster."""

from pathlib import Path

import torch

from cli.progress import Summary, follow_run
from cli.script import deferred_interrupts
from cluster.connection import connected, machines_with_room
from cluster.ray_pool import RayPool
from cluster.resources import WantedWorkers, worker_resources
from pipeline.dispatch import Dispatcher
from pipeline.stage import StagePlan, WindowWork, count_windows
from sam.flags import SamFlags
from sam.settings import engine_settings
from utils import LOG, Listing


def run_on_cluster(
    name: str, listing: Listing, plan: StagePlan, sam: SamFlags, wanted: WantedWorkers, data_root: Path
) -> Summary:
    """Run the stages of every event; returns their outcomes. `name`: of the run, for its summary.

    Raises UsageError if there is no such cluster, or if it cannot run the workers.
    """
    with connected(wanted) as ray, deferred_interrupts() as check:
        nodes = machines_with_room(ray, wanted, check)
        resources = worker_resources(wanted, nodes)
        settings = engine_settings(sam, torch.device("cuda:0" if resources.gpus else "cpu"))
        outputs = {stage.folder.parent for event in listing.events[:1] for stage in plan(event)}
        for folder in outputs:
            folder.mkdir(parents=True, exist_ok=True)
        LOG.info("%s; workers with %s each, now room for %d", settings, resources, resources.room(nodes))
        pool = RayPool(ray, resources, settings, [data_root, *outputs], check)
        work = WindowWork.of(settings.model_type)
        with follow_run(name, listing, count_windows(plan, work)) as progress:
            try:
                largest_first = sorted(listing.events, key=progress.units_left, reverse=True)
                Dispatcher(pool, largest_first, plan, progress, work).run()
            finally:
                pool.close()
    return progress.summary
