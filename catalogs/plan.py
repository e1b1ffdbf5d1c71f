"""Plans an event: measures what a catalog has of a place, chooses the images, and lays the grid."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

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
from rasters.place import Grid
from utils import LOG, EventError, UsageError, Window, hide_secrets

READERS = 8  # acquisitions that are measured at once
ROLES = MONITOR, REFERENCE, HISTORICAL = "monitor image", "reference image", "historical image"


@dataclass(frozen=True)
class Measured:
    """An acquisition, and what was measured of it."""

    acquisition: Acquisition
    problem: str = ""  # why it cannot be used, as far as measuring shows
    coverage: float | None = None  # share of the box with data, 0 to 1; None: not measured
    clouds: float | None = None  # share of these pixels under clouds, 0 to 1; None: not known
    clouds_measured: bool = False  # in pixels; otherwise the catalog says it of the whole items
    kind: tuple[str, np.dtype] | None = None  # bands and pixel type

    @property
    def candidate(self) -> Candidate:
        """What the choice depends on; unknown clouds count as none."""
        return Candidate(self.acquisition.date, self.coverage or 0.0, self.clouds or 0.0)


class Decision(NamedTuple):
    """What became of an acquisition."""

    measured: Measured
    role: str | None = None  # one of ROLES; None: not chosen
    reason: str = ""  # why it was not chosen

    @property
    def acquisition(self) -> Acquisition:
        """The acquisition."""
        return self.measured.acquisition


@dataclass(frozen=True)
class EventPlan:
    """The images of an event and their grid."""

    decisions: list[Decision]  # on all acquisitions, oldest first
    grid: Grid

    @property
    def chosen(self) -> list[Decision]:
        """The images of the event, oldest first, the monitor image last."""
        return [decision for decision in self.decisions if decision.role]


class NoImageError(EventError):
    """No acquisition can be the monitor image or the reference image."""

    def __init__(self, message: str, decisions: Sequence[Decision] = ()) -> None:
        """`decisions`: on the acquisitions that were looked at."""
        super().__init__(message)
        self.decisions = list(decisions)


def measure(acquisition: Acquisition, query: Query) -> Measured:
    """Measure coverage, clouds, bands and pixel type, or find out why the acquisition cannot be used.

    Raises NetworkError if the server cannot be reached.
    """
    try:
        mosaic = Mosaic(acquisition, query, coarse_grid(query.box))
        height, width = mosaic.grid.shape
        values, cloudy = mosaic.read(Window(0, 0, width, height))
    except EventError as error:
        problem = hide_secrets(str(error))
        LOG.warning("%s: is left out: %s", acquisition.text, problem)
        return Measured(acquisition, problem)
    valid = ~np.isnan(values[..., 0])
    coverage, clouds, problem = float(valid.mean()), None, ""
    if mosaic.has_cloud_masks:
        clouds = float(cloudy.sum() / max(valid.sum(), 1))
    elif acquisition.cloud_cover is not None:
        clouds = acquisition.cloud_cover / 100
    if coverage == 0:
        problem = "holds no data in the box"
    elif query.bands is None and mosaic.layout not in ("3 band(s)", "4 band(s)"):
        problem = f"{mosaic.layout}, but colour images are needed"
    kind = (mosaic.layout, mosaic.dtype)
    return Measured(acquisition, problem, coverage, clouds, mosaic.has_cloud_masks, kind)


def plan_event(
    acquisitions: Sequence[Acquisition], query: Query, crs: osr.SpatialReference | None, resolution: float | None
) -> EventPlan:
    """Choose the images and lay the grid (docs/get_event.md). `acquisitions`: all, oldest first.

    Raises NoImageError, which says why, if there is no usable monitor image or reference image.
    """
    before = [acquisition for acquisition in acquisitions if acquisition.date < query.event_date]
    after = [acquisition for acquisition in acquisitions if acquisition.date >= query.event_date]
    later: list[Decision] = []
    try:
        later = _named_monitor(after, query) if query.images else _first_usable(after, query)
        (monitor,) = (decision.measured for decision in later if decision.role)
        earlier = _choose(before, monitor, query)
    except NoImageError as error:
        looked_at = error.decisions + later
        others = [Decision(Measured(acquisition)) for acquisition in before] if not later else []
        raise NoImageError(str(error), others + looked_at) from None
    decisions = earlier + later
    if query.images:
        for decision in decisions:
            if decision.role is None:
                LOG.warning("%s: is named but not used: %s", decision.acquisition.text, decision.reason)
    image = open_image(image_asset(monitor.acquisition.scenes[0], query), query.bands)
    return EventPlan(decisions, event_grid(query.box, image, crs, resolution))


def _kind(image: Measured) -> str:
    assert image.kind is not None
    return f"{image.kind[0]} of {image.kind[1].name}"


def _first_usable(after: Sequence[Acquisition], query: Query) -> list[Decision]:
    """Decide on the monitor image: the first on or after the event that covers the box and is clear.

    Later ones are not measured.
    """
    decisions: list[Decision] = []
    for day, acquisitions in itertools.groupby(after, key=lambda acquisition: acquisition.date):
        images = _measure_all(list(acquisitions), query)
        reasons = [
            image.problem or why_unusable(image.candidate, query.max_cloud, config.CATALOG_MIN_COVERAGE) or ""
            for image in images
        ]
        usable = [image for image, reason in zip(images, reasons, strict=True) if not reason]
        monitor = max(usable, key=lambda image: image.candidate.clear, default=None)
        decisions += [
            Decision(image, MONITOR) if image is monitor else Decision(image, None, reason or OTHER_OF_DATE)
            for image, reason in zip(images, reasons, strict=True)
        ]
        if monitor is not None:
            later = [Measured(acquisition) for acquisition in after if acquisition.date > day]
            return decisions + [Decision(image, None, "is later than the monitor image") for image in later]
    if not after:
        raise NoImageError(f"no image from {query.event_date} to {query.last}; take a longer --after")
    raise NoImageError(
        f"none of the {len(after)} images from {query.event_date} to {query.last} can be the monitor image: "
        f"{_reasons(decisions)}; take a longer --after or another --max-cloud",
        decisions,
    )


def _reasons(decisions: Sequence[Decision]) -> str:
    return ", ".join(f"{decision.acquisition.date} {decision.reason}" for decision in decisions[:5])


def _named_monitor(after: Sequence[Acquisition], query: Query) -> list[Decision]:
    """Decide on the monitor image among the images that the user named."""
    if len(after) != 1:
        dates = ", ".join(acquisition.text for acquisition in after) or "none"
        raise UsageError(
            f"--images: name the items of one date from {query.event_date} on, the monitor image; there are: {dates}"
        )
    monitor = measure(after[0], query)
    if monitor.problem:
        text = f"{monitor.acquisition.text}: {monitor.problem}"
        raise NoImageError(text, [Decision(monitor, None, monitor.problem)])
    return [Decision(monitor, MONITOR)]


def _choose(before: Sequence[Acquisition], monitor: Measured, query: Query) -> list[Decision]:
    """Decide on the historical images and the reference image."""
    images = _measure_all(before, query)
    reasons = {number: image.problem for number, image in enumerate(images) if image.problem}
    for number, image in enumerate(images):
        if not image.problem and image.kind != monitor.kind:
            reasons[number] = f"{_kind(image)}, the monitor image has {_kind(monitor)}"
    usable = [number for number in range(len(images)) if number not in reasons]
    if query.images:
        chosen = usable
    else:
        choice = choose_historical([images[number].candidate for number in usable], query.dates, query.max_cloud)
        chosen = [usable[index] for index in choice.chosen]
        reasons |= {usable[index]: reason for index, reason in choice.reasons.items()}
    if not chosen:
        decisions = [Decision(image, None, reasons[number]) for number, image in enumerate(images)]
        problem = f"no image from {query.first} to {query.event_date} can be the reference image"
        listed = f": {_reasons(decisions)}" if decisions else ""
        raise NoImageError(f"{problem}{listed}; take a longer --before or another --max-cloud", decisions)
    days = [images[number].acquisition.date for number in chosen]
    if len(set(days)) < len(days):
        raise UsageError("--images: two historical images have one date; name the items of one sensor for each date")
    roles = dict.fromkeys(chosen, HISTORICAL) | {chosen[-1]: REFERENCE}
    return [Decision(image, roles.get(number), reasons.get(number, "")) for number, image in enumerate(images)]


def _measure_all(acquisitions: Sequence[Acquisition], query: Query) -> list[Measured]:
    """Measure acquisitions on several threads, with a bar."""
    images = []
    with (
        ThreadPoolExecutor(READERS, "measure") as readers,
        progress_bar("measuring clouds and coverage", "date", len(acquisitions)) as bar,
    ):
        for image in readers.map(lambda acquisition: measure(acquisition, query), acquisitions):
            images.append(image)
            bar.update()
    return images
