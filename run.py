"""AnomalyCD: both stages over every event of a data root, with one SAM."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config
from cli.flags import add_data_arguments, positive_int
from cli.script import keep_log, run_script
from cluster.launch import add_run_arguments, parse_run_arguments, run_stages
from img_io import ImageOptions
from pipeline.stage1_job import Stage1Plan
from pipeline.stage2_job import Stage2Plan
from pipeline.stage_job import StagePlan
from utils import Event, list_events


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
    add_run_arguments(parser)
    return parse_run_arguments(parser, arguments)


def plan(event: Event, args: argparse.Namespace) -> list[StagePlan]:
    """The stages to take an event through."""
    options = ImageOptions.of(args)
    folder1, folder2 = args.stage1_root / event.name, args.stage2_root / event.name
    stage1 = Stage1Plan(event, folder1, options, not args.no_skip_existing_stage1, args.patch_size)
    stage2 = Stage2Plan(event, folder2, options, args.skip_existing_stage2, folder1 / config.CHANGE_MAP_NAME)
    plans: dict[str, list[StagePlan]] = {"1": [stage1], "2": [stage2], "all": [stage1, stage2]}
    return plans[args.stage]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages asked for; returns the exit code."""
    args = parse_arguments(arguments)
    name = "both stages" if args.stage == "all" else f"stage {args.stage}"
    with keep_log(args.log_file):
        return run_stages(name, list_events(args.data_root, args.event), lambda event: plan(event, args), args)


if __name__ == "__main__":
    run_script(main)
