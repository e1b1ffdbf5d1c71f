"""Writes the report's first page: all events in a table, totals by category, the chart and the map."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import config
from eval_metrics import Scores, average_scores
from report.event_report import EventReport, slug
from report.html import ASSETS, area, category_tag, color, coordinates, count, ink, page, percent, score, spread, text
from utils import CATEGORIES, date_text

COLUMNS = (  # of the table: heading, what it means where that is not plain, whether it is a number
    ("", "", False),
    ("Event", "", False),
    ("Category", "", False),
    ("Dates", "sorts by the monitor image's", False),
    ("Size", "pixels, width × height", True),
    ("Area flagged", "by stage 2", True),
    ("%", "of the pixels with data", True),
    ("Regions", "of stage 2's binary map", True),
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
    """What the overview says of one event; all None but the name where it failed."""

    name: str
    category: int
    slug: str | None = None  # of its page, where it has one
    problem: str | None = None
    missing: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()  # the historical images', then the monitor image's
    shape: tuple[int, int] | None = None
    place: tuple[float, float] | None = None  # longitude, latitude
    flagged: int | None = None  # pixels
    share: float | None = None
    square_metres: float | None = None
    regions: int | None = None
    stage1: Scores | None = None
    stage2: Scores | None = None


def row_of(report: EventReport) -> Row:
    """The row of an event that was read."""
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
    )


def overview(rows: Sequence[Row], title: str) -> str:
    """The page."""
    listed = "\n".join(map(_table_row, rows))
    head = "".join(_heading(*column) for column in COLUMNS)
    options = "".join(
        f'<option value="{index}">{text(name)}{f" ({text(about)})" if about else ""}</option>'
        for index, (name, about, _) in enumerate(COLUMNS)
        if name
    )
    body = f"""<header class="top"><span class="brand">AnomalyCD</span><span class="muted">{text(title)}</span></header>
<main class="overview">
<h1>Overview</h1>
{_tiles(rows)}
<div class="pictures">{_chart(rows)}{_map(rows)}</div>
<section class="card">
<div class="bar"><h2>Events</h2><div class="chips" role="group" aria-label="Filter by category">{_chips(rows)}</div>
<label class="sorter">Sort by <select data-table="events"><option value="">name</option>{options}</select></label>
<span class="muted" id="shown" role="status"></span></div>
<div class="scroller"><table id="events" class="cards"><thead>
<tr class="groups"><th colspan="8"></th><th colspan="3">Stage 1</th><th colspan="3">Stage 2</th></tr>
<tr>{head}</tr></thead><tbody>
{listed}
</tbody></table></div></section>
<section class="card"><h2>By category</h2>
<p class="muted">Mean recall and precision over the labelled events, and the F1 of these two means.</p>
<div class="scroller"><table class="totals">{_totals(rows)}</table></div></section>
</main>
<footer class="muted">Precision is weighted: a false positive counts {config.EVAL_BACKGROUND_WEIGHT:g}.
Coastlines: Natural Earth, public domain.</footer>"""
    return page(f"AnomalyCD: {title}", body, "./", ["tables.js"])


def _heading(name: str, about: str, number: bool) -> str:
    if not name:
        return "<td></td>"
    described = f' title="{text(about)}"' if about else ""
    return f'<th scope="col"{" class=number" if number else ""}{described}><button>{text(name)}</button></th>'


def _table_row(row: Row) -> str:
    about = f' data-category="{row.category}"'
    if row.slug is None:
        return (
            f'<tr class="failed"{about}><td></td><td data-label="Event" data-sort="{text(row.name)}">{text(row.name)}'
            f'</td><td data-label="Category" data-sort="{row.category}">{category_tag(row.category)}</td>'
            f'<td colspan="{len(COLUMNS) - 3}" class="problem">{text(row.problem)}</td></tr>'
        )
    address = f"events/{row.slug}.html"
    missing = f'<p class="missing">{text("; ".join(row.missing))}</p>' if row.missing else ""
    height, width = row.shape or (0, 0)
    span = f"{len(row.dates) - 1} since {row.dates[0]}" if row.dates else ""
    cells = [
        f'<td class="thumb"><a href="{address}" tabindex="-1"><img src="events/{row.slug}/overview.jpg" alt="" '
        'loading="lazy"></a></td>',
        f'<td data-label="Event" data-sort="{text(row.name)}"><a href="{address}">{text(row.name)}</a>{missing}</td>',
        f'<td data-label="Category" data-sort="{row.category}">{category_tag(row.category)}</td>',
        f'<td data-label="Dates" data-sort="{text(row.dates[-1])}">{text(row.dates[-1])}'
        f'<small class="muted">{text(span)}</small></td>',
        _number("Size", f"{width} × {height}", height * width),
        _number("Area flagged", _flagged(row), row.square_metres or row.flagged),
        _number("Share", percent(row.share), row.share),
        _number("Regions", count(row.regions), row.regions),
    ]
    for stage, scores in (("Stage 1", row.stage1), ("Stage 2", row.stage2)):
        for index, name in enumerate(("recall", "precision", "F1")):
            value = scores[index] if scores else None
            cells.append(_number(f"{stage} {name}", score(value), value, bar=True))
    return f"<tr{about}>{''.join(cells)}</tr>"


def _number(label: str, shown: str, value: float | None, bar: bool = False) -> str:
    known = value is not None
    style = f' style="--value:{value:.3f}"' if bar and known else ""
    kind = f"number{' score' if bar and known else ''}"
    return f'<td class="{kind}" data-label="{label}" data-sort="{value if known else ""}"{style}>{shown}</td>'


def _flagged(row: Row) -> str:
    return area(row.square_metres) if row.square_metres is not None or row.flagged is None else f"{row.flagged:,} px"


def _chips(rows: Sequence[Row]) -> str:
    present = sorted({row.category for row in rows})
    return "".join(
        f'<button class="chip" aria-pressed="false" data-filter="{number}">{category_tag(number)}'
        f" <span>{sum(row.category == number for row in rows)}</span></button>"
        for number in present
    )


def _average(rows: Sequence[Row], stage: str) -> Scores | None:
    scores = [found for row in rows if (found := getattr(row, stage)) is not None]
    return average_scores(scores) if scores else None


def _tiles(rows: Sequence[Row]) -> str:
    failed = sum(row.problem is not None for row in rows)
    partial = sum(bool(row.missing) for row in rows)
    troubles = [f"{failed} could not be read"] * bool(failed) + [f"{partial} incomplete"] * bool(partial)
    scored = sum(row.stage2 is not None for row in rows)
    tiles = [("Events", count(len(rows)), ", ".join(troubles) or "all complete")]
    for stage, name in (("stage1", "Stage 1"), ("stage2", "Stage 2")):
        average = _average(rows, stage)
        about = f"recall {score(average.recall)}, precision {score(average.precision)}" if average else "no scores"
        tiles.append((f"{name}: F1 of means", score(average and average.f1), about))
    total = _total_area(rows)
    regions = sum(row.regions or 0 for row in rows)
    tiles.append(("Area flagged", total, f"{count(regions)} regions in all events"))
    tiles[1:1] = [("Scored", count(scored), "events with a label and stage 2's map")]
    shown = "".join(f"<div><dt>{text(a)}</dt><dd>{text(b)}</dd><dd>{text(c)}</dd></div>" for a, b, c in tiles)
    return f'<dl class="tiles">{shown}</dl>'


def _total_area(rows: Sequence[Row]) -> str:
    known = [row.square_metres for row in rows if row.square_metres is not None]
    return area(sum(known)) if known else area(None)


def _totals(rows: Sequence[Row]) -> str:
    groups = [(category_tag(number), [row for row in rows if row.category == number]) for number in CATEGORIES]
    groups.append(("<b>All</b>", list(rows)))
    head = ("Category", "Events", "Scored", "Area flagged", "Regions", *("Recall", "Prec.", "F1") * 2)
    lines = []
    for title, members in groups:
        if members:
            scored = sum(row.stage2 is not None for row in members)
            regions = sum(row.regions or 0 for row in members)
            cells = [count(len(members)), count(scored), _total_area(members), count(regions)]
            for stage in ("stage1", "stage2"):
                average = _average(members, stage)
                cells += [score(value) for value in (average or (None, None, None))]
            lines.append(f'<tr><th scope="row">{title}</th>{"".join(f"<td class=number>{c}</td>" for c in cells)}</tr>')
    columns = "".join(f'<th scope="col"{" class=number" if index else ""}>{h}</th>' for index, h in enumerate(head))
    return (
        '<thead><tr class="groups"><th colspan="5"></th><th colspan="3">Stage 1</th><th colspan="3">Stage 2</th></tr>'
        f"<tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody>"
    )


def _marks(rows: Sequence[Row], points: Sequence[tuple[float, float]], about: Sequence[str], distance: float) -> str:
    """A numbered circle an event, which leads to its page, with a line to its point where it had to move."""
    marks = []
    for row, point, (x, y), label in zip(rows, points, spread(points, distance), about, strict=True):
        (x0, y0), title = point, f"{row.name}: {label}"
        line = f'<path d="M{x0:.1f} {y0:.1f}L{x:.1f} {y:.1f}"/>' if (x0, y0) != (x, y) else ""
        marks.append(
            f'<a href="events/{row.slug}.html" data-category="{row.category}" aria-label="{text(title)}">{line}'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{MARK}" fill="{color(row.category)}"/>'
            f'<text x="{x:.1f}" y="{y + 3.6:.1f}" fill="{ink(row.category)}">{row.category}</text>'
            f"<title>{text(title)}</title></a>"
        )
    return f'<g class="marks">{"".join(marks)}</g>'


def _chart(rows: Sequence[Row]) -> str:
    """F1 of stage 1 to the right, of stage 2 upwards; above the diagonal stage 2 is the better one."""
    scored = [row for row in rows if row.stage1 and row.stage2]
    values = [(row.stage1.f1, row.stage2.f1) for row in scored if row.stage1 and row.stage2]
    points = [(MARGIN + first * CHART, 12 + (1 - second) * CHART) for first, second in values]
    about = [f"F1 {first:.2f} in stage 1, {second:.2f} in stage 2" for first, second in values]
    ticks = []
    for step in range(6):
        x, y, value = MARGIN + step / 5 * CHART, 12 + (1 - step / 5) * CHART, f"{step / 5:.1f}"
        ticks.append(f'<path d="M{x:.0f} 12v{CHART}M{MARGIN} {y:.0f}h{CHART}"/>')
        ticks.append(f'<text x="{x:.0f}" y="{CHART + 30}">{value}</text>')
        ticks.append(f'<text x="{MARGIN - 8}" y="{y + 4:.0f}" class="end">{value}</text>')
    side = CHART + MARGIN + 16
    drawn = f"""<svg viewBox="0 0 {side} {CHART + 58}" class="chart" role="group"
aria-label="F1 of stage 2 against F1 of stage 1, one mark an event">
<g class="axes">{"".join(ticks)}<path class="diagonal" d="M{MARGIN} {12 + CHART}L{MARGIN + CHART} 12"/>
<text x="{MARGIN + CHART / 2}" y="{CHART + 51}" class="name">F1 of stage 1</text>
<text transform="translate(12 {12 + CHART / 2}) rotate(-90)" class="name">F1 of stage 2</text></g>
{_marks(scored, points, about, MARK)}</svg>"""
    said = "Above the dashed line, stage 2 is the better one." if scored else "No event has scores of both stages."
    return f'<figure class="card"><h2>Stage 1 against stage 2</h2>{drawn}<figcaption>{said}</figcaption></figure>'


def _map(rows: Sequence[Row]) -> str:
    placed = [row for row in rows if row.place]
    places = [row.place for row in placed if row.place]
    points = [(2 * (longitude + 180), 2 * (90 - latitude)) for longitude, latitude in places]
    about = [coordinates(place) for place in places]
    nowhere = sum(row.slug is not None for row in rows) - len(placed)
    unplaced = f" {nowhere} without a georeference." if nowhere else ""
    rings = json.loads((ASSETS / "land.json").read_text(encoding="utf-8"))
    land = "".join(_ring(ring) for ring in rings)
    meridians = "".join(f"M{x} 0v340" for x in range(0, 721, 60)) + "".join(f"M0 {y}h720" for y in range(0, 341, 60))
    return f"""<figure class="card"><h2>Where the events are</h2>
<svg viewBox="0 0 720 340" class="map" role="group" aria-label="World map, one mark an event">
<path class="grid" d="{meridians}"/><path class="land" d="{land}"/>{_marks(placed, points, about, 2 * MARK + 1)}</svg>
<figcaption>{len(placed)} of {len(rows)} events on the map.{unplaced}</figcaption></figure>"""


def _ring(ring: Sequence[int]) -> str:
    points = [f"{(x + 1800) / 5:g} {(900 - y) / 5:g}" for x, y in zip(ring[::2], ring[1::2], strict=True)]
    return f"M{'L'.join(points)}Z"
