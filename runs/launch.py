"""Starts the stages of a script over the events of its data root. Imports no large library until events are found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.script import keep_log
from runs.flags import RunFlags
from runs.outcome import log_outcome
from utils import LOG, Listing, list_events

if TYPE_CHECKING:
    from cli.progress import Summary
    from pipeline.stage import StagePlan


def launch(name: str, plan: "StagePlan", flags: RunFlags, following: Sequence[str] = ()) -> int:
    """Run the stages that `plan` returns for each event; returns the exit code.

    They run in this process, with `--ray` on a cluster; with `--dry-run`, their plan is printed. `name`: of the run,
    for its summary. `following`: the next commands, for the end of the log. Raises UsageError if the run is impossible
    as requested.
    """
    with keep_log(flags.log_file):
        listing = list_events(flags.data_root, flags.event)
        # torch and GDAL, which these load, take seconds.
        if flags.dry_run:
            return _print_plan(name, listing, plan, flags)
        summary = _run(name, listing, plan, flags)
        failed = {failed for failed, _ in summary.failed}
        finished = [event for event in listing.events if event.name not in failed]
        log_outcome(finished, plan, following if finished else ())
        return summary.exit_code


def _run(name: str, listing: Listing, plan: "StagePlan", flags: RunFlags) -> "Summary":
    if flags.workers is not None:
        from cluster.run import run_on_cluster

        return run_on_cluster(name, listing, plan, flags.sam, flags.workers, flags.data_root)
    from pipeline.local import run_here
    from sam.devices import resolve_device
    from sam.settings import engine_settings

    settings = engine_settings(flags.sam, resolve_device(flags.sam.device))
    LOG.info("%s on %s", settings, settings.device)
    return run_here(name, listing, plan, settings)


def _print_plan(name: str, listing: Listing, plan: "StagePlan", flags: RunFlags) -> int:
    import torch

    from pipeline.dry_run import print_plan
    from sam.devices import resolve_device
    from sam.settings import engine_settings

    device = torch.device(flags.workers.device_type) if flags.workers else resolve_device(flags.sam.device)
    code = print_plan(name, listing, plan, engine_settings(flags.sam, device, fetch=False), flags.workers is None)
    for line in listing.ignored():
        print(line)
    return code
