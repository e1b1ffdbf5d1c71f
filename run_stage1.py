"""Stage 1: from the reference and monitor image of every event to its continuous change map."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config
from cli.flags import add_data_arguments, positive_int
from cli.script import keep_log, run_script
from cluster.launch import add_run_arguments, parse_run_arguments, run_stages
from img_io import ImageOptions
from pipeline.stage1_job import Stage1Plan
from utils import Event, list_events


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument(
        "--output-root",
        type=Path,
        default=config.STAGE1_OUTPUT_DIR,
        help="folder for one output folder an event (default: %(default)s)",
    )
    parser.add_argument(
        "--patch-size",
        type=positive_int,
        default=config.STAGE1_PATCH_SIZE,
        help="side of a window in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-existing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave events alone whose change map is there, whole and made with the same parameters (default: skip)",
    )
    add_run_arguments(parser)
    return parse_run_arguments(parser, arguments)


def plan(event: Event, args: argparse.Namespace) -> list[Stage1Plan]:
    """What to do with an event."""
    folder = args.output_root / event.name
    return [Stage1Plan(event, folder, ImageOptions.of(args), args.skip_existing, args.patch_size)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run stage 1; returns the exit code."""
    args = parse_arguments(arguments)
    with keep_log(args.log_file):
        return run_stages("stage 1", list_events(args.data_root, args.event), lambda event: plan(event, args), args)


if __name__ == "__main__":
    run_script(main)
