"""Adds what a user brings to the results before a report is written: reviews and footprints."""

from collections.abc import Callable, Sequence
from pathlib import Path

import config
from cli.event_lock import event_lock
from cli.progress import run_events
from evaluation.footprint_file import open_footprints
from evaluation.footprints import add_footprints
from evaluation.reviews import Review, add_reviews, read_reviews
from rasters.maps import open_stage_map
from utils import LOG, Event, Listing, UsageError


def apply_reviews(listing: Listing, paths: Sequence[Path], result_root: Path) -> int:
    """Write reviews into the polygons of their events; returns the exit code.

    Logs reviews that fit no region, and reviewed events that are not in the listing. Raises UsageError if a file is no
    review.
    """
    by_event: dict[str, list[Review]] = {}
    for review in read_reviews(paths):
        by_event.setdefault(review.event, []).append(review)
    for name in sorted(by_event.keys() - {event.name for event in listing.events}):
        LOG.warning("%s: reviewed, but no event of this data root; its reviews are not used", name)
    reviewed = Listing([event for event in listing.events if event.name in by_event])

    def process(event: Event, event_done: object) -> None:
        folder = result_root / event.name
        with event_lock(folder):
            count, unmatched = add_reviews(folder / config.REGIONS_NAME, by_event[event.name])
        LOG.info("%s: regions with a verdict: %d", event.name, count)
        for review in unmatched:
            _log_unmatched(event, review)

    return run_events("reviews", reviewed, lambda event: 1, process, unit="event").exit_code


def _log_unmatched(event: Event, review: Review) -> None:
    centre = review.outline.Centroid()
    note = f" ({review.note})" if review.note else ""
    LOG.warning(
        "%s: no region has the place and shape of the one that %s %s at %.5f, %.5f%s",
        *(event.name, review.reviewer, review.verdict, centre.GetY(), centre.GetX(), note),
    )


def apply_footprints(listing: Listing, path: Path, buffers: Sequence[float], result_root: Path) -> int:
    """Measure footprints on the maps of every event; returns the exit code.

    Raises UsageError if the file is missing or cannot be read.
    """
    if not path.exists():
        raise UsageError(f"{path}: not found; name a vector file with --footprints")

    def count(event: Event) -> int:
        scores = open_stage_map(result_root / event.name / config.ANOMALY_MAP_NAME, stage=2)
        return open_footprints(path, scores, max(buffers)).count

    def process(event: Event, footprints_done: Callable[[int], object]) -> str | None:
        with event_lock(result_root / event.name):
            return add_footprints(event, path, result_root, buffers, footprints_done)

    return run_events("footprints", listing, count, process, unit="footprint").exit_code
