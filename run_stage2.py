"""Stage 2: from the change map and all historical images of every event to its anomaly map."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config
from cli.flags import add_data_arguments
from cli.script import keep_log, run_script
from cluster.launch import add_run_arguments, parse_run_arguments, run_stages
from img_io import ImageOptions
from pipeline.stage2_job import Stage2Plan
from utils import Event, list_events


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument(
        "--stage1-root",
        type=Path,
        default=config.STAGE1_OUTPUT_DIR,
        help="where stage 1 wrote its change maps (default: %(default)s)",
    )
    parser.add_argument(
        "--output-root",
        type=Path,
        default=config.STAGE2_OUTPUT_DIR,
        help="folder for one output folder an event (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave events alone whose maps are there, whole and made with the same parameters (default: recompute)",
    )
    add_run_arguments(parser)
    return parse_run_arguments(parser, arguments)


def plan(event: Event, args: argparse.Namespace) -> list[Stage2Plan]:
    """What to do with an event."""
    folder, stage1_path = args.output_root / event.name, args.stage1_root / event.name / config.CHANGE_MAP_NAME
    return [Stage2Plan(event, folder, ImageOptions.of(args), args.skip_existing, stage1_path)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run stage 2; returns the exit code."""
    args = parse_arguments(arguments)
    with keep_log(args.log_file):
        return run_stages("stage 2", list_events(args.data_root, args.event), lambda event: plan(event, args), args)


if __name__ == "__main__":
    run_script(main)
