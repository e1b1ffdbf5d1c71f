"""Stage 1: from the reference and monitor image of every event to its continuous change map."""

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
    add_window_arguments,
    check_overlap,
    positive_int,
)
from cli.script import run_script
from runs.flags import RunFlags, add_run_arguments, image_options, parse_run_arguments
from runs.launch import launch
from runs.outcome import next_command
from utils import Event

if TYPE_CHECKING:
    from pipeline.stage1 import Stage1Request


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(description=__doc__)
    add_data_arguments(parser)
    add_folder(parser, "--output-root", config.STAGE1_OUTPUT_DIR, "folder for one output folder per event")
    add_number(parser, "--patch-size", positive_int, config.STAGE1_PATCH_SIZE, "side of a window in pixels")
    parser.add_argument(
        "--skip-existing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="skip events with a change map that is whole and made with the same parameters or by another program "
        "(default: skip)",
    )
    add_window_arguments(parser)
    add_run_arguments(parser)
    args = parse_run_arguments(parser, arguments)
    check_overlap(parser, args.overlap, args.patch_size)
    return args


def plan(event: Event, args: argparse.Namespace) -> "list[Stage1Request]":
    """Return stage 1 of an event."""
    from pipeline.stage1 import Stage1Request, Stage1Settings

    settings = Stage1Settings(args.patch_size, overlap=args.overlap, tolerance=args.tolerance)
    return [Stage1Request(event, args.output_root / event.name, image_options(args), args.skip_existing, settings)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run stage 1; returns the exit code."""
    args = parse_arguments(arguments)
    stage2 = (
        ("--data-root", args.data_root, config.DEFAULT_DATA_ROOT),
        ("--stage1-root", args.output_root, config.STAGE1_OUTPUT_DIR),
    )
    following = [next_command("run_stage2.py", stage2)]
    return launch("stage 1", partial(plan, args=args), RunFlags.of(args), following)


if __name__ == "__main__":
    run_script(main)
