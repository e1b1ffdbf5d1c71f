"""Stage 2: from the change map and all historical images of every event to its anomaly map."""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import config
from cli.flags import (
    ScriptParser,
    add_data_arguments,
    add_folder,
    add_stage2_arguments,
    add_window_arguments,
    check_overlap,
)
from cli.script import run_script
from runs.flags import RunFlags, add_run_arguments, image_options, parse_run_arguments, stage2_extras
from runs.launch import launch
from runs.outcome import report_command
from utils import Event

if TYPE_CHECKING:
    from pipeline.stage2 import Stage2Request


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(description=__doc__)
    add_data_arguments(parser)
    add_folder(parser, "--stage1-root", config.STAGE1_OUTPUT_DIR, "where stage 1 wrote its change maps")
    add_folder(parser, "--output-root", config.STAGE2_OUTPUT_DIR, "folder for one output folder per event")
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="skip events with maps that are whole and made with the same parameters or by another program "
        "(default: recompute)",
    )
    add_window_arguments(parser)
    add_stage2_arguments(parser)
    add_run_arguments(parser)
    args = parse_run_arguments(parser, arguments)
    check_overlap(parser, args.overlap, config.STAGE2_SMALL_PATCH_SIZE, config.STAGE2_PATCH_SIZE)
    return args


def plan(event: Event, args: argparse.Namespace) -> "list[Stage2Request]":
    """Return stage 2 of an event."""
    from pipeline.stage2 import Stage2Request, Stage2Settings

    folder, change_map = args.output_root / event.name, args.stage1_root / event.name / config.CHANGE_MAP_NAME
    settings, extras = Stage2Settings(overlap=args.overlap, tolerance=args.tolerance), stage2_extras(args)
    return [Stage2Request(event, folder, image_options(args), args.skip_existing, settings, change_map, extras)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run stage 2; returns the exit code."""
    args = parse_arguments(arguments)
    following = [report_command(args.data_root, args.stage1_root, args.output_root)]
    return launch("stage 2", partial(plan, args=args), RunFlags.of(args), following)


if __name__ == "__main__":
    run_script(main)
