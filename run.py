"""AnomalyCD: both stages over every event of a data root, with one SAM."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import config
import run_stage1
import run_stage2
from engine_options import add_sam_arguments, load_engine
from feature_cache import FeatureCache
from img_io import ImageOptions, event_shape
from runs import add_log_argument, keep_log, run_events, run_script
from sam_engine import SamEngine
from utils import Event, add_data_arguments, add_image_arguments, list_events, positive_int


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=("all", "1", "2"), default="all", help="what to run (default: %(default)s)")
    add_data_arguments(parser)
    parser.add_argument(
        "--stage1-root",
        type=Path,
        default=config.STAGE1_OUTPUT_DIR,
        help="folder for stage 1's outputs (default: %(default)s)",
    )
    parser.add_argument(
        "--stage2-root",
        type=Path,
        default=config.STAGE2_OUTPUT_DIR,
        help="folder for stage 2's outputs (default: %(default)s)",
    )
    parser.add_argument(
        "--no-skip-existing-stage1",
        action="store_true",
        help="compute change maps anew that are there already (default: skip them)",
    )
    parser.add_argument(
        "--skip-existing-stage2",
        action="store_true",
        help="leave anomaly maps alone that are there already (default: recompute them)",
    )
    parser.add_argument(
        "--patch-size",
        type=positive_int,
        default=config.STAGE1_PATCH_SIZE,
        help="side of a stage 1 window in pixels (default: %(default)s)",
    )
    add_image_arguments(parser)
    add_sam_arguments(parser)
    add_log_argument(parser)
    return parser.parse_args(arguments)


def process_event(
    event: Event, args: argparse.Namespace, engine: SamEngine, window_done: Callable[[], object]
) -> str | None:
    """Take one event through the stages asked for; returns the reasons where all of them skip it.

    What stage 1 encodes, in windows that stage 2 has too, is not encoded again.
    """
    options = ImageOptions.of(args)
    folder1, folder2 = args.stage1_root / event.name, args.stage2_root / event.name
    args.stage1_root.mkdir(parents=True, exist_ok=True)
    shared = run_stage2.event_windows(event_shape(event)) if args.stage == "all" else []
    reasons = []
    with FeatureCache(args.stage1_root, shared) as cache:
        if args.stage != "2":
            skip = not args.no_skip_existing_stage1
            reasons.append(
                run_stage1.process_event(event, engine, folder1, options, args.patch_size, skip, window_done, cache)
            )
        if args.stage != "1":
            stage1_path, skip = folder1 / config.CHANGE_MAP_NAME, args.skip_existing_stage2
            reasons.append(
                run_stage2.process_event(event, engine, stage1_path, folder2, options, skip, window_done, cache)
            )
    given = [reason for reason in reasons if reason is not None]
    return " and ".join(given) if len(given) == len(reasons) else None


def count_windows(event: Event, args: argparse.Namespace) -> int:
    """How many windows the stages asked for take an event in."""
    in_stage1 = run_stage1.count_windows(event, args.patch_size) if args.stage != "2" else 0
    in_stage2 = run_stage2.count_windows(event) if args.stage != "1" else 0
    return in_stage1 + in_stage2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages asked for; returns the exit code."""
    args = parse_arguments(arguments)
    with keep_log(args.log_file):
        listing = list_events(args.data_root, args.event)
        with load_engine(args) as engine:
            return run_events(
                "both stages" if args.stage == "all" else f"stage {args.stage}",
                listing,
                lambda event: count_windows(event, args),
                lambda event, window_done: process_event(event, args, engine, window_done),
            ).exit_code


if __name__ == "__main__":
    run_script(main)
