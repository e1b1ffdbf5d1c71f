"""AnomalyCD: both stages over every event of a data root, with one SAM."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config
import run_stage1
import run_stage2
from engine_options import add_sam_arguments, load_engine
from utils import add_data_arguments, list_events, positive_int, run_script


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
    add_sam_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages asked for; returns the larger of their exit codes."""
    args = parse_arguments(arguments)
    list_events(args.data_root, args.event)  # a wrong name is told before the weights are loaded
    engine = load_engine(args)
    common = ["--data-root", str(args.data_root)]
    if args.event is not None:
        common += [f"--event={args.event}"]
    codes = []
    if args.stage in ("all", "1"):
        flags = ["--output-root", str(args.stage1_root), "--patch-size", str(args.patch_size)]
        flags.append("--no-skip-existing" if args.no_skip_existing_stage1 else "--skip-existing")
        codes.append(run_stage1.main(common + flags, engine))
    if args.stage in ("all", "2"):
        flags = ["--stage1-root", str(args.stage1_root), "--output-root", str(args.stage2_root)]
        flags += ["--skip-existing"] if args.skip_existing_stage2 else []
        codes.append(run_stage2.main(common + flags, engine))
    return max(codes)


if __name__ == "__main__":
    run_script(main)
