"""Command-line flags of a run: images, SAM, dry run, Ray cluster, log. Imports no large library."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.flags import add_image_arguments, add_log_argument, positive_int
from sam.flags import SamFlags, add_sam_arguments

if TYPE_CHECKING:
    from cluster.resources import WantedWorkers
    from img_io import ImageOptions
    from pipeline.side_outputs import Stage2Extras


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
        help="print events, dates, windows, memory, time and what would be skipped, and exit (default: run)",
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


class RunFlags(NamedTuple):
    """What the command line says about a run, apart from its stages."""

    sam: SamFlags
    workers: "WantedWorkers | None"  # of a cluster; None: the run is in this process
    data_root: Path
    event: str | None  # the one event to process; None: all
    dry_run: bool
    log_file: Path | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> "RunFlags":
        """Return the values of the flags of `add_data_arguments` and `add_run_arguments`."""
        workers = None
        if args.ray is not None:
            from cluster.resources import WantedWorkers

            shares = (args.ray_workers, args.ray_gpus_per_worker, args.ray_cpus_per_worker)
            workers = WantedWorkers(args.ray, args.device, *shares)
        return cls(SamFlags.of(args), workers, args.data_root, args.event, args.dry_run, args.log_file)


def image_options(args: argparse.Namespace) -> "ImageOptions":
    """Return the values of the flags of `add_image_arguments`."""
    from img_io import ImageOptions  # loads GDAL

    return ImageOptions(args.stretch, args.bands, args.align_shift)


def stage2_extras(args: argparse.Namespace) -> "Stage2Extras":
    """Return the values of the flags of `add_stage2_arguments`."""
    from pipeline.side_outputs import Stage2Extras  # loads GDAL

    return Stage2Extras(args.explain, args.simplify, args.geojson, args.split_regions)
