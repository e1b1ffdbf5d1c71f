"""Converts a public data set, as it lies on the disk after unpacking, into event folders (docs/datasets.md)."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cli.flags import ScriptParser
from cli.script import run_script
from utils import LOG, AnomalyCDError, describe_error

NAMES = ("oscd", "levir-cd", "s2looking", "xbd", "gvlm", "spacenet7")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(prog="python -m datasets.convert", description=__doc__)
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=f"the data set: {', '.join(NAMES)}")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the unpacked folder")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder for one folder per event: a data root")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert a data set; returns the exit code, 1 if an event failed. Events that exist are kept."""
    args = parse_arguments(arguments)
    # These load GDAL.
    from cli.progress import Summary, progress_bar
    from datasets.event_folder import EventReader, write_event
    from datasets.oscd import oscd
    from datasets.pairs import gvlm, levir_cd, s2looking
    from datasets.spacenet7 import spacenet7
    from datasets.xbd import xbd

    readers: dict[str, Callable[[Path], Iterator[EventReader]]]
    readers = dict(zip(NAMES, (oscd, levir_cd, s2looking, xbd, gvlm, spacenet7), strict=True))
    summary, started = Summary(f"events of {args.name}"), time.monotonic()
    events = list(readers[args.name](args.source))
    with progress_bar(args.name, "event", len(events)) as bar:
        for number, read in enumerate(events, 1):
            name = f"event {number}"  # until it is read
            try:
                event = read()
                name = event.name
                if write_event(event, args.target):
                    summary.done.append(name)
                else:
                    summary.skipped.append((name, "its folder exists"))
            except (AnomalyCDError, OSError) as error:
                LOG.error("%s: %s", name, describe_error(error))
                summary.failed.append((name, describe_error(error)))
            bar.update()
    summary.log(time.monotonic() - started)
    LOG.info("data root: %s", args.target)
    return summary.exit_code


if __name__ == "__main__":
    run_script(main)
