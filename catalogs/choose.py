"""Chooses historical images that show as many seasons as possible."""

from calendar import isleap
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import config

NEAR_DAYS = 15  # dates whose distances in the year differ by less than this count as equally good
YEAR = 365
FEBRUARY_28 = 59  # day of the year
OTHER_OF_DATE = "another image of this date is better"


class Candidate(NamedTuple):
    """What the choice depends on, for one acquisition."""

    day: date
    coverage: float  # share of the box that holds data, 0 to 1
    clouds: float  # share of these pixels, 0 to 1

    @property
    def clear(self) -> float:
        """Share of the box with data and without clouds, 0 to 1."""
        return self.coverage * (1 - self.clouds)


class Choice(NamedTuple):
    """Indices of the chosen candidates, oldest first, and why the others were not chosen, by index."""

    chosen: list[int]
    reasons: dict[int, str]


def days_apart(first: date, second: date) -> int:
    """Return how many days of the year lie between two dates, whatever their years: 0 to 182."""
    days = abs(_day_of_year(first) - _day_of_year(second))
    return min(days, YEAR - days)


def _day_of_year(day: date) -> int:
    """Return 1 to 365; 29 February counts as the 28th."""
    number = day.timetuple().tm_yday
    return number - 1 if isleap(day.year) and number > FEBRUARY_28 else number


def why_unusable(candidate: Candidate, max_cloud: float, least_coverage: float) -> str | None:
    """Return why an acquisition cannot be used; None if it can. `max_cloud`: percent."""
    if candidate.coverage < least_coverage:
        return f"covers only {candidate.coverage:.0%} of the box"
    if candidate.clouds * 100 > max_cloud:
        return f"clouds on {candidate.clouds:.0%}, above --max-cloud"
    return None


def _is_whole(candidate: Candidate) -> bool:
    return candidate.coverage >= config.CATALOG_MIN_COVERAGE


def choose_historical(candidates: Sequence[Candidate], wanted: int, max_cloud: float) -> Choice:
    """Choose at most `wanted` historical images (docs/get_event.md).

    The first is the reference image, the latest that covers the box. Each further one is the date whose day of the year
    is farthest from those chosen so far; among dates that are nearly as far, the one with the fewest clouds.
    """
    reasons: dict[int, str] = {}
    usable: list[int] = []
    for index, candidate in enumerate(candidates):
        reason = why_unusable(candidate, max_cloud, config.STAGE2_MIN_DATE_COVERAGE)
        if reason is None:
            usable.append(index)
        else:
            reasons[index] = reason
    best = {}  # one acquisition of each date: the clearest of those that cover the box, if any does
    for index in sorted(usable, key=lambda index: (_is_whole(candidates[index]), candidates[index].clear)):
        best[candidates[index].day] = index
    reasons |= {index: OTHER_OF_DATE for index in usable if index not in best.values()}
    whole = [index for index in best.values() if _is_whole(candidates[index])]
    if not whole:
        return Choice([], reasons | dict.fromkeys(best.values(), "covers only a part of the box"))
    reference = max(whole, key=lambda index: candidates[index].day)
    chosen, waiting = [reference], set(best.values()) - {reference}
    for index in sorted(waiting):
        if candidates[index].day > candidates[reference].day:
            reasons[index] = "covers only a part of the box, as no reference image may"
            waiting.remove(index)
    while waiting and len(chosen) < wanted:
        taken = _next([candidates[index] for index in chosen], {index: candidates[index] for index in waiting})
        chosen.append(taken)
        waiting.remove(taken)
    reasons |= dict.fromkeys(waiting, "its season is covered")
    return Choice(sorted(chosen, key=lambda index: candidates[index].day), reasons)


def _next(chosen: Sequence[Candidate], waiting: dict[int, Candidate]) -> int:
    distances = {
        index: min(days_apart(candidate.day, other.day) for other in chosen) for index, candidate in waiting.items()
    }
    farthest = max(distances.values())
    near = [index for index, distance in distances.items() if distance > farthest - NEAR_DAYS]
    return min(
        near, key=lambda index: (waiting[index].clouds, -waiting[index].coverage, -waiting[index].day.toordinal())
    )
