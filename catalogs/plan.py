"""Plans an event: measures what a catalog has of a place, chooses the images, and lays the grid."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date

import numpy as np
from osgeo import osr

import config
from catalogs.choose import OTHER_OF_DATE, Candidate, choose_historical, why_unusable
from catalogs.mosaic import Mosaic, image_asset
from catalogs.query import Query
from catalogs.remote import open_image
from catalogs.scenes import Acquisition
from catalogs.target import coarse_grid, event_grid
from cli.progress import progress_bar
from rasters.warp import Grid
from utils import LOG, EventError, UsageError, Window, hide_secrets

READERS = 8  # acquisitions that are measured at once
ROLES = MONITOR, REFERENCE, HISTORICAL = "monitor image", "reference image", "historical image"


@dataclass
class Considered:
    """An acquisition, what was measured of it, and what became of it."""

    acquisition: Acquisition
    role: str | None = None  # one of ROLES; None: not chosen
    reason: str = ""  # why it was not chosen
    coverage: float | None = None  # share of the box with data, 0 to 1; None: not measured
    clouds: float | None = None  # share of these pixels under clouds, 0 to 1; None: not known
    clouds_measured: bool = False  # in pixels; otherwise the catalog says it of the whole items
    kind: tuple[str, np.dtype] | None = None  # bands and pixel type

    @property
    def candidate(self) -> Candidate:
        """What the choice depends on; unknown clouds count as none."""
        return Candidate(self.acquisition.date, self.coverage or 0.0, self.clouds or 0.0)


@dataclass(frozen=True)
class EventPlan:
    """The images of an event and their grid."""

    considered: list[Considered]  # oldest first
    grid: Grid

    @property
    def chosen(self) -> list[Considered]:
        """The images of the event, oldest first, the monitor image last."""
        return [one for one in self.considered if one.role]


def measure(one: Considered, query: Query) -> None:
    """Fill in coverage, clouds, bands and pixel type, or the reason why the acquisition cannot be used.

    Raises NetworkError if the server cannot be reached.
    """
    try:
        mosaic = Mosaic(one.acquisition, query, coarse_grid(query.box))
        height, width = mosaic.grid.shape
        values, cloudy = mosaic.read(Window(0, 0, width, height))
    except EventError as error:
        one.reason = hide_secrets(str(error))
        LOG.warning("%s: is left out: %s", one.acquisition.text, one.reason)
        return
    valid = ~np.isnan(values[..., 0])
    one.coverage, one.kind = float(valid.mean()), (mosaic.layout, mosaic.dtype)
    if mosaic.has_cloud_masks:
        one.clouds, one.clouds_measured = float(cloudy.sum() / max(valid.sum(), 1)), True
    elif one.acquisition.cloud_cover is not None:
        one.clouds = one.acquisition.cloud_cover / 100
    if one.coverage == 0:
        one.reason = "holds no data in the box"
    elif query.bands is None and mosaic.layout not in ("3 band(s)", "4 band(s)"):
        one.reason = f"{mosaic.layout}, but colour images are needed"


def plan_event(
    considered: Sequence[Considered], query: Query, crs: osr.SpatialReference | None, resolution: float | None
) -> EventPlan:
    """Choose the images and lay the grid (docs/get_event.md).

    `considered`: all acquisitions, oldest first; filled in with what was measured, the roles and the reasons. Raises
    EventError, which says why, if there is no usable monitor image or reference image.
    """
    before = [one for one in considered if one.acquisition.date < query.event_date]
    after = [one for one in considered if one.acquisition.date >= query.event_date]
    monitor = _named_monitor(after, query) if query.images else _first_usable(after, query)
    _measure_all(before, query)
    for one in before:
        if not one.reason and one.kind != monitor.kind:
            one.reason = f"{_kind(one)}, the monitor image has {_kind(monitor)}"
    _choose(before, query)
    if query.images:
        for one in considered:
            if one.role is None:
                LOG.warning("%s: is named but not used: %s", one.acquisition.text, one.reason)
    image = open_image(image_asset(monitor.acquisition.scenes[0], query), query.bands)
    return EventPlan(list(considered), event_grid(query.box, image, crs, resolution))


def _kind(one: Considered) -> str:
    assert one.kind is not None
    return f"{one.kind[0]} of {one.kind[1].name}"


def _first_usable(after: Sequence[Considered], query: Query) -> Considered:
    """Return the first image on or after the event that covers the box and is clear; measures no later ones."""
    by_date: dict[date, list[Considered]] = {}
    for one in after:
        by_date.setdefault(one.acquisition.date, []).append(one)
    for day, images in by_date.items():
        _measure_all(images, query)
        for one in images:
            one.reason = one.reason or why_unusable(one.candidate, query.max_cloud, config.CATALOG_MIN_COVERAGE) or ""
        usable = [one for one in images if not one.reason]
        if usable:
            monitor = max(usable, key=lambda one: one.candidate.clear)
            monitor.role = MONITOR
            for one in after:
                if one.acquisition.date > day:
                    one.reason = "is later than the monitor image"
                elif one in usable and one is not monitor:
                    one.reason = OTHER_OF_DATE
            return monitor
    if not after:
        raise EventError(f"no image from {query.event_date} to {query.last}; take a longer --after")
    raise EventError(
        f"none of the {len(after)} images from {query.event_date} to {query.last} can be the monitor image: "
        f"{_reasons(after)}; take a longer --after or another --max-cloud"
    )


def _reasons(images: Sequence[Considered]) -> str:
    return ", ".join(f"{one.acquisition.date} {one.reason}" for one in images[:5])


def _named_monitor(after: Sequence[Considered], query: Query) -> Considered:
    """Return the monitor image among the images that the user named."""
    if len(after) != 1:
        dates = ", ".join(one.acquisition.text for one in after) or "none"
        raise UsageError(
            f"--images: name the items of one date from {query.event_date} on, the monitor image; there are: {dates}"
        )
    (monitor,) = after
    measure(monitor, query)
    if monitor.reason:
        raise EventError(f"{monitor.acquisition.text}: {monitor.reason}")
    monitor.role = MONITOR
    return monitor


def _choose(before: Sequence[Considered], query: Query) -> None:
    """Set role or reason of each historical image. Raises EventError if there is no reference image."""
    usable = [one for one in before if not one.reason]
    if query.images:
        chosen = usable
    else:
        choice = choose_historical([one.candidate for one in usable], query.dates, query.max_cloud)
        chosen = [usable[index] for index in choice.chosen]
        for index, reason in choice.reasons.items():
            usable[index].reason = reason
    if not chosen:
        problem = f"no image from {query.first} to {query.event_date} can be the reference image"
        listed = f": {_reasons(before)}" if before else ""
        raise EventError(f"{problem}{listed}; take a longer --before or another --max-cloud")
    days = [one.acquisition.date for one in chosen]
    if len(set(days)) < len(days):
        raise UsageError("--images: two historical images have one date; name the items of one sensor for each date")
    for one in chosen:
        one.role = HISTORICAL
    chosen[-1].role = REFERENCE


def _measure_all(images: Sequence[Considered], query: Query) -> None:
    """Measure acquisitions on several threads, with a bar."""
    with (
        ThreadPoolExecutor(READERS, "measure") as readers,
        progress_bar("measuring clouds and coverage", "date", len(images)) as bar,
    ):
        for _ in readers.map(lambda one: measure(one, query), images):
            bar.update()
