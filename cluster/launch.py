"""Takes events through the stages that a script asks for, in this process, with one SAM."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from cli.flags import add_image_arguments, add_log_argument
from cli.progress import run_events
from cluster.flags import add_ray_arguments
from cluster.ray_pool import run_on_cluster
from cluster.resources import expected_device
from img_io import event_shape
from pipeline.dry_run import print_plan
from pipeline.feature_cache import FeatureCache
from pipeline.stage2_job import event_windows
from pipeline.stage_job import StagePlan, advance, event_locks, join_reasons
from pipeline.windows import compute_windows
from sam.devices import resolve_device
from sam.engine import SamEngine
from sam.flags import add_sam_arguments
from sam.settings import engine_settings, load_engine
from sam.weights import SamIdentity
from utils import Event, Listing


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that say how images are read, what computes, and where."""
    add_image_arguments(parser)
    add_sam_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print events, windows, memory and what would be skipped, and do no more (default: compute it)",
    )
    add_ray_arguments(parser)
    add_log_argument(parser)


def parse_run_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. For other processes, paths are absolute."""
    args = parser.parse_args(arguments)
    if args.ray is not None:
        for name, value in vars(args).items():
            if isinstance(value, Path):
                setattr(args, name, value.absolute())
    return args


Plan = Callable[[Event], Sequence[StagePlan]]  # the stages to take an event through


def run_stages(name: str, listing: Listing, plan: Plan, args: argparse.Namespace) -> int:
    """Take every event through the stages that `plan` gives for it; returns the exit code.

    `name`: of the run, in its summary. `args`: with the flags of `add_run_arguments`.
    """
    if args.dry_run:
        device = expected_device(args) if args.ray is not None else resolve_device(args.device)
        return print_plan(name, listing, plan, engine_settings(args, device, fetch=False))
    if args.ray is not None:
        return run_on_cluster(name, listing, plan, args)
    engine, sam = load_engine(args)
    with engine:
        return run_events(
            name,
            listing,
            lambda event: sum(stage.count_windows() for stage in plan(event)),
            lambda event, window_done: run_event(plan(event), sam, engine, window_done),
        ).exit_code


def run_event(
    stages: Sequence[StagePlan], sam: SamIdentity, engine: SamEngine, window_done: Callable[[], object]
) -> str | None:
    """Take one event through its stages; returns the reasons where all of them skip it.

    What stage 1 encodes, in windows that stage 2 has too, is not encoded again.
    """
    shared = event_windows(event_shape(stages[0].event)) if len(stages) > 1 else []
    with event_locks(stages), FeatureCache(stages[0].folder, shared) as cache:
        step = advance(None, stages, sam)
        reasons = step.reasons
        while step.prepared is not None:
            store = step.prepared.job.store()
            for _ in range(len(step.prepared.job.windows) - len(step.missing)):
                window_done()
            with store.removed_if_empty():
                compute_windows(step.prepared.work(engine, cache), step.missing, store, window_done)
            step = advance(step.prepared, step.rest, sam)
            reasons += step.reasons
    return join_reasons(reasons)
