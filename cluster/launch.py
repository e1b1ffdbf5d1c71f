"""Starts the stages of a script over the events of its data root. Imports no large library until events are found."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cli.script import keep_log
from utils import Event, list_events

if TYPE_CHECKING:
    from pipeline.stage import StageRequest


def launch(
    name: str, plan: "Callable[[Event, argparse.Namespace], Sequence[StageRequest]]", args: argparse.Namespace
) -> int:
    """Take the events that `args` names through the stages that `plan` returns; returns the exit code.

    `name`: name of the run, for its summary. `args`: parsed flags, including those of `add_run_arguments`. Raises
    UsageError if the run is impossible as requested.
    """
    with keep_log(args.log_file):
        listing = list_events(args.data_root, args.event)
        from cluster.stages import run_stages  # loads torch and GDAL, which takes seconds

        return run_stages(name, listing, lambda event: plan(event, args), args)
