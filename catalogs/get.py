"""From a query to an event folder: search, plan, fetch."""

from pathlib import Path
from typing import NamedTuple

import config
from catalogs.fetch import fetch_event, remove_fetched
from catalogs.mosaic import Mosaic
from catalogs.plan import EventPlan, NoImageError, plan_event
from catalogs.query import Query
from catalogs.remote import remote_files
from catalogs.scenes import find_scenes, group
from catalogs.search import search
from catalogs.table import print_plan, print_table, warn_left_out, warn_of_depth, warn_of_resolution
from catalogs.target import parse_crs
from utils import LOG, EventError, UsageError, hide_secrets, list_names


class EventSettings(NamedTuple):
    """How an event is written."""

    name: str
    data_root: Path
    size: int  # longest side that is allowed, pixels
    resolution: float | None  # metres; None: that of the monitor image
    crs: str | None  # None: that of the monitor image, or UTM
    stretch: str  # one of config.STRETCH_MODES


def get_event(query: Query, settings: EventSettings, dry_run: bool) -> int:
    """Write the event, or print what would be written; returns the exit code.

    Raises UsageError, EventError or NetworkError with one line that says why there is no event.
    """
    folder = settings.data_root / settings.name
    if folder.exists() and not dry_run:
        LOG.info("%s: exists, nothing to do; remove it, or take another --name", folder)
        remove_fetched(settings.data_root, settings.name)  # a run that was killed may have left them
        return 0
    crs = parse_crs(settings.crs) if settings.crs else None
    with remote_files():
        scenes, unusable = find_scenes(search(query), query)
        warn_left_out(unusable)
        acquisitions = group(scenes)
        if not acquisitions:
            raise EventError(
                f"{hide_secrets(query.stac)}: no images of {query.box} from {query.first} to {query.last}; "
                "check --bbox, or take longer --before and --after"
            )
        dates = {acquisition.date for acquisition in acquisitions}
        before = {date for date in dates if date < query.event_date}
        LOG.info("%s: %d dates before the event, %d on or after it", settings.name, len(before), len(dates - before))
        warn_of_depth(len(before))
        try:
            plan = plan_event(acquisitions, query, crs, settings.resolution)
        except NoImageError as error:
            if dry_run:
                print_table(error.decisions, lambda _: 0)
            raise
        if len(plan.chosen) - 1 < len(before):
            warn_of_depth(len(plan.chosen) - 1)
        warn_of_resolution(plan.grid.transform.xx, (config.STAGE1_MIN_MASK_PIXELS, config.STAGE2_MIN_MASK_PIXELS))
        if dry_run:
            print_plan(plan, lambda decision: Mosaic(decision.acquisition, query, plan.grid).stored_bytes())
        _check_size(plan, settings.size)
        if dry_run:
            return 0
        for decision in plan.chosen:
            LOG.info("%s: %s", decision.role, decision.acquisition.text)
        fetch_event(plan, query, settings.stretch, settings.data_root, settings.name)
    LOG.info("%s: %s", folder, list_names([path.name for path in sorted(folder.iterdir())]))
    return 0


def _check_size(plan: EventPlan, size: int) -> None:
    height, width = plan.grid.shape
    if max(height, width) > size:
        step = plan.grid.transform.xx
        raise UsageError(
            f"the box has {width} x {height} pixels of {step:.4g} m, above --size {size}: take a smaller box, "
            f"--size {max(height, width)}, or --resolution {step * max(height, width) / size * 1.001:.3g}"
        )
    if min(height, width) < config.MIN_IMAGE_SIDE:
        raise UsageError(
            f"the box has {width} x {height} pixels, at least {config.MIN_IMAGE_SIDE} per side are needed; "
            "take a larger box"
        )
