"""Writes the report's first page: all events in a table, totals by category, the chart and the map."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import config
from eval_metrics import Scores, average_scores
from report.event_report import EventReport, slug
from report.html import ASSETS, area, coordinates, count_text, made_with_text, render, score, spread_marks
from utils import CATEGORIES, date_text

COLUMNS = (  # of the table of events: heading, explanation if needed, whether it is numeric
    ("", "", False),
    ("Event", "", False),
    ("Category", "", False),
    ("Dates", "sorted by the monitor date", False),
    ("Size", "pixels, width × height", True),
    ("Area flagged", "by stage 2", True),
    ("%", "of the pixels with data", True),
    ("Regions", "of stage 2's binary map", True),
)
SCORE_COLUMNS = (  # in addition, if any event has a label
    ("Recall", "stage 1", True),
    ("Prec.", "stage 1, weighted precision", True),
    ("F1", "stage 1", True),
    ("Recall", "stage 2", True),
    ("Prec.", "stage 2, weighted precision", True),
    ("F1", "stage 2", True),
)
CHART, MARGIN = 300, 44  # side of the chart's square, and room for its axes
MARK = 8.5  # radius of a mark


@dataclass(frozen=True)
class Row:
    """An event in the overview; a failed event has only name, category and problem."""

    name: str
    category: int
    slug: str | None = None  # of its page, if it has one
    problem: str | None = None
    missing: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()  # the historical images', then the monitor image's
    shape: tuple[int, int] | None = None
    centre: tuple[float, float] | None = None  # longitude, latitude
    flagged: int | None = None  # pixels
    share: float | None = None
    square_metres: float | None = None
    regions: int | None = None
    stage1: Scores | None = None
    stage2: Scores | None = None
    made_with: str = ""  # see made_with_text


class Total(NamedTuple):
    """A row of the table of categories."""

    category: int | None  # None: all events
    events: int
    scored: int
    flagged: str  # area of all these events
    regions: int
    scores: list[float | None]  # recall, precision, F1 of stage 1, then of stage 2


class Mark(NamedTuple):
    """An event in the chart or on the map."""

    row: Row
    point: tuple[float, float]  # exact position
    centre: tuple[float, float]  # of its circle
    moved: bool
    title: str


def row_of(report: EventReport) -> Row:
    """Return the row of an event that was read."""
    event, flagged, valid = report.event, report.flagged, report.valid
    known = flagged is not None and report.place.pixel_area is not None
    return Row(
        event.name,
        event.category,
        slug(event.name),
        None,
        tuple(report.missing),
        tuple(date_text(path) for path in (*event.historical, event.monitor)),
        report.images.shape,
        report.place.centre,
        flagged,
        None if flagged is None else flagged / valid if valid else 0.0,
        (flagged or 0) * (report.place.pixel_area or 0) if known else None,
        len(report.regions) if report.curve else None,
        report.stage1,
        report.stage2,
        made_with_text(report.made_with),
    )


def overview(rows: Sequence[Row], title: str) -> str:
    """Return the HTML of the overview."""
    groups = {number: [row for row in rows if row.category == number] for number in CATEGORIES}
    groups = {number: members for number, members in groups.items() if members}
    placed = [row for row in rows if row.centre]
    is_scored = any(row.stage1 or row.stage2 for row in rows)
    return render(
        "overview.html",
        "./",
        ["tables.js"],
        title=title,
        columns=COLUMNS + (SCORE_COLUMNS if is_scored else ()),
        is_scored=is_scored,
        rows=rows,
        groups=groups,
        tiles=_tiles(rows, is_scored),
        flagged_text=flagged_text,
        totals=[*(_total(number, members) for number, members in groups.items()), _total(None, rows)] if rows else [],
        side=CHART,
        margin=MARGIN,
        mark_radius=MARK,
        chart_marks=_chart_marks(rows),
        map_marks=_map_marks(placed),
        unplaced=sum(row.slug is not None for row in rows) - len(placed),
        land="".join(_ring(ring) for ring in json.loads((ASSETS / "land.json").read_text(encoding="utf-8"))),
        background_weight=config.EVAL_BACKGROUND_WEIGHT,
        made_with=_common_origin(rows),
    )


def _common_origin(rows: Sequence[Row]) -> str:
    """Return how the maps were made, if it is the same for all events."""
    origins = {row.made_with for row in rows if row.made_with}
    return origins.pop() if len(origins) == 1 else "How the maps were made stands on each event's page."


def _total(category: int | None, members: Sequence[Row]) -> Total:
    missing = (None, None, None)
    scores = [value for stage in ("stage1", "stage2") for value in _average(members, stage) or missing]
    scored = sum(row.stage2 is not None for row in members)
    regions = sum(row.regions or 0 for row in members)
    return Total(category, len(members), scored, flagged_text(members), regions, scores)


def _average(rows: Sequence[Row], stage: str) -> Scores | None:
    scores = [found for row in rows if (found := getattr(row, stage)) is not None]
    return average_scores(scores) if scores else None


def flagged_text(rows: Sequence[Row]) -> str:
    """Return the area flagged in events as text; events whose pixels have no known size count in pixels."""
    metres = [row.square_metres for row in rows if row.square_metres is not None]
    pixels = [row.flagged for row in rows if row.square_metres is None and row.flagged is not None]
    parts = [area(sum(metres))] * bool(metres) + [f"{sum(pixels):,} px"] * bool(pixels)
    return " + ".join(parts) or area(None)


def _tiles(rows: Sequence[Row], is_scored: bool) -> list[tuple[str, str, str]]:
    """Return the figures at the top of the page: name, value, explanation."""
    failed = sum(row.problem is not None for row in rows)
    partial = sum(bool(row.missing) for row in rows)
    problems = [f"{failed} could not be read"] * bool(failed) + [f"{partial} incomplete"] * bool(partial)
    tiles = [("Events", count_text(len(rows)), ", ".join(problems) or "all complete")]
    if is_scored:
        scored = sum(row.stage2 is not None for row in rows)
        tiles.append(("Scored", count_text(scored), "events with a label and stage 2's map"))
    for stage, name in (("stage1", "Stage 1"), ("stage2", "Stage 2")) if is_scored else ():
        average = _average(rows, stage)
        about = f"recall {score(average.recall)}, precision {score(average.precision)}" if average else "no scores"
        tiles.append((f"{name}: F1 of means", score(average and average.f1), about))
    regions = sum(row.regions or 0 for row in rows)
    return [*tiles, ("Area flagged", flagged_text(rows), f"{count_text(regions)} regions in all events")]


def _marks(
    rows: Sequence[Row], points: Sequence[tuple[float, float]], about: Sequence[str], distance: float
) -> list[Mark]:
    """Return a numbered circle per event, moved from its point if circles would overlap."""
    return [
        Mark(row, point, centre, point != centre, f"{row.name}: {label}")
        for row, point, centre, label in zip(rows, points, spread_marks(points, distance), about, strict=True)
    ]


def _chart_marks(rows: Sequence[Row]) -> list[Mark]:
    """Return marks with F1 of stage 1 as x and of stage 2 as y: above the diagonal, stage 2 is better."""
    scored = [row for row in rows if row.stage1 and row.stage2]
    values = [(row.stage1.f1, row.stage2.f1) for row in scored if row.stage1 and row.stage2]
    points = [(MARGIN + first * CHART, 12 + (1 - second) * CHART) for first, second in values]
    about = [f"F1 {first:.2f} in stage 1, {second:.2f} in stage 2" for first, second in values]
    return _marks(scored, points, about, 2 * MARK + 1)


def _map_marks(placed: Sequence[Row]) -> list[Mark]:
    centres = [row.centre for row in placed if row.centre]
    points = [(2 * (longitude + 180), 2 * (90 - latitude)) for longitude, latitude in centres]
    return _marks(placed, points, [coordinates(centre) for centre in centres], 2 * MARK + 1)


def _ring(ring: Sequence[int]) -> str:
    points = [f"{(x + 1800) / 5:g} {(900 - y) / 5:g}" for x, y in zip(ring[::2], ring[1::2], strict=True)]
    return f"M{'L'.join(points)}Z"
