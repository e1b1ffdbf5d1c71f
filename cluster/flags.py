"""The command-line flags of a run on a Ray cluster. Imports nothing heavy."""

import argparse

from cli.flags import positive_int


def add_ray_arguments(parser: argparse.ArgumentParser) -> None:
    """`--ray` and the flags that shape its workers."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="compute on the workers of a Ray cluster: of this machine, where no address is given; `auto` is the "
        "cluster that this machine belongs to (default: in this process; see docs/cluster.md)",
    )
    parser.add_argument(
        "--ray-workers",
        type=positive_int,
        metavar="N",
        help="so many workers, on CPUs (default: one on every GPU; without GPUs as many as there are CPUs for)",
    )
    parser.add_argument(
        "--ray-gpus-per-worker",
        type=gpu_share,
        default=1.0,
        metavar="SHARE",
        help="of a GPU that each worker takes: 0.5 puts two on each (default: %(default)s)",
    )
    parser.add_argument(
        "--ray-cpus-per-worker",
        type=positive_int,
        metavar="N",
        help="CPUs that each worker takes, and threads that it runs (default: the machine's, shared by its workers; "
        "on CPUs without --ray-workers, 1)",
    )


def gpu_share(text: str) -> float:
    """An argparse type: a share of a GPU, or one."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value
