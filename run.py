"""AnomalyCD: both stages over every event of a data root, with one SAM."""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import config
from cli.flags import (
    ScriptParser,
    add_data_arguments,
    add_folder,
    add_number,
    add_stage2_arguments,
    add_window_arguments,
    check_overlap,
    positive_int,
)
from cli.script import run_script
from runs.flags import RunFlags, add_run_arguments, image_options, parse_run_arguments, stage2_extras
from runs.launch import launch
from runs.outcome import report_command
from utils import Event

if TYPE_CHECKING:
    from pipeline.stage import StageRequest


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(description=__doc__)
    parser.add_argument("--stage", choices=("all", "1", "2"), default="all", help="what to run (default: %(default)s)")
    add_data_arguments(parser)
    add_folder(parser, "--stage1-root", config.STAGE1_OUTPUT_DIR, "folder for stage 1's outputs")
    add_folder(parser, "--stage2-root", config.STAGE2_OUTPUT_DIR, "folder for stage 2's outputs")
    parser.add_argument(
        "--no-skip-existing-stage1",
        action="store_true",
        help="recompute existing change maps, also those of another program (default: skip them)",
    )
    parser.add_argument(
        "--skip-existing-stage2",
        action="store_true",
        help="skip existing anomaly maps, also those of another program (default: recompute them)",
    )
    add_number(parser, "--patch-size", positive_int, config.STAGE1_PATCH_SIZE, "side of a stage 1 window in pixels")
    add_window_arguments(parser)
    add_stage2_arguments(parser)
    add_run_arguments(parser)
    args = parse_run_arguments(parser, arguments)
    check_overlap(parser, args.overlap, args.patch_size, config.STAGE2_SMALL_PATCH_SIZE, config.STAGE2_PATCH_SIZE)
    return args


def plan(event: Event, args: argparse.Namespace) -> "list[StageRequest]":
    """Return the stages to run for an event."""
    from pipeline.stage1 import Stage1Request, Stage1Settings
    from pipeline.stage2 import Stage2Request, Stage2Settings

    options = image_options(args)
    settings1 = Stage1Settings(args.patch_size, overlap=args.overlap, tolerance=args.tolerance)
    settings2 = Stage2Settings(overlap=args.overlap, tolerance=args.tolerance)
    folder1, folder2 = args.stage1_root / event.name, args.stage2_root / event.name
    stage1 = Stage1Request(event, folder1, options, not args.no_skip_existing_stage1, settings1)
    change_map = folder1 / config.CHANGE_MAP_NAME
    stage2 = Stage2Request(
        event, folder2, options, args.skip_existing_stage2, settings2, change_map, stage2_extras(args)
    )
    requests: dict[str, list[StageRequest]] = {"1": [stage1], "2": [stage2], "all": [stage1, stage2]}
    return requests[args.stage]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages asked for; returns the exit code."""
    args = parse_arguments(arguments)
    name = "both stages" if args.stage == "all" else f"stage {args.stage}"
    following = [report_command(args.data_root, args.stage1_root, args.stage2_root)] if args.stage != "1" else []
    return launch(name, partial(plan, args=args), RunFlags.of(args), following)


if __name__ == "__main__":
    run_script(main)
