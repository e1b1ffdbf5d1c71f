"""Command-line flags of a run: images, SAM, dry run, Ray cluster, log. Imports no large library."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cli.flags import add_image_arguments, add_log_argument, positive_int
from sam.flags import add_sam_arguments


def add_ray_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--ray` and the flags for its workers."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="compute on the workers of a Ray cluster: on this machine if no address is given; `auto` is the "
        "cluster that this machine belongs to (default: in this process; see docs/cluster.md)",
    )
    parser.add_argument(
        "--ray-workers",
        type=positive_int,
        metavar="N",
        help="number of workers, on CPUs (default: one on every GPU; without GPUs as many as the CPUs allow)",
    )
    parser.add_argument(
        "--ray-gpus-per-worker",
        type=gpu_share,
        default=1.0,
        metavar="SHARE",
        help="share of a GPU per worker: 0.5 puts two on each (default: %(default)s)",
    )
    parser.add_argument(
        "--ray-cpus-per-worker",
        type=positive_int,
        metavar="N",
        help="CPUs and threads per worker (default: the machine's, shared by its workers; "
        "on CPUs without --ray-workers, 1)",
    )


def gpu_share(text: str) -> float:
    """An argparse type: a share of a GPU, above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for images, SAM, dry run, cluster and log."""
    add_image_arguments(parser)
    add_sam_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print events, windows, memory and what would be skipped, and exit (default: run)",
    )
    add_ray_arguments(parser)
    add_log_argument(parser)


def parse_run_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; with `--ray`, paths become absolute, for processes in other folders."""
    args = parser.parse_args(arguments)
    if args.ray is not None:
        for name, value in vars(args).items():
            if isinstance(value, Path):
                setattr(args, name, value.absolute())
    return args
