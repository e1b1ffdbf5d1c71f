"""Writes the page of one event, and the pictures that go with it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

import config
from rasters.resize import nearest_pixels
from report.event_report import SETTINGS, EventReport, Region, page_rasters, slug
from report.html import (
    area,
    category_tag,
    coordinates,
    count,
    page,
    percent,
    score,
    script_data,
    text,
    write_bytes,
    write_text,
)
from report.pictures import encode_photo, fit, outline, paint_gaps, shrink_image
from utils import CATEGORIES, date_text

THUMBNAIL, OVERVIEW = 200, 360  # longer sides, pixels
FLAGGED = (255, 60, 160)
MAX_PINS = 60  # regions that are numbered in the image
OVERLAYS = {  # name of the layer and its title, the lowest first
    "change": "Change map, stage 1",
    "filtered": "Filtered change map",
    "anomaly": "Anomaly map, stage 2",
    "binary": "Binary result",
    "label": "Label",
    "verdict": "Hits, false alarms, misses",
}
VERDICTS = (("hit", "true positive"), ("false", "false positive"), ("miss", "missed"))


class Photo(NamedTuple):
    """A date, as the page shows it."""

    title: str
    file: str  # as the page names it
    thumbnail: str


def write_event_page(root: Path, report: EventReport, max_width: int, photo_done: Callable[[], object]) -> None:
    """Write an event's pictures and its page to a report's folder; `photo_done` is called after each date."""
    name = slug(report.event.name)
    photos = _write_photos(root / "events", name, report, max_width, photo_done)
    write_text(root / "events" / f"{name}.html", event_page(report, photos, max_width))


def _write_photos(
    folder: Path, name: str, report: EventReport, max_width: int, photo_done: Callable[[], object]
) -> list[Photo]:
    images = (*report.images.historical, report.images.monitor)
    size, most_bytes = fit(report.images.shape, max_width), config.REPORT_PHOTO_BYTES // len(images)
    photos = []
    for index, image in enumerate(images):
        pixels = paint_gaps(shrink_image(image, size))
        photo = Photo(_title(report, index), f"{name}/photo{index}.jpg", f"{name}/thumbnail{index}.jpg")
        write_bytes(folder / photo.file, encode_photo(pixels, most_bytes))
        write_bytes(folder / photo.thumbnail, encode_photo(_shrink(pixels, THUMBNAIL), 40_000))
        photos.append(photo)
        photo_done()
    write_bytes(folder / name / "overview.jpg", encode_photo(_flagged(report, _shrink(pixels, OVERVIEW)), 80_000))
    return photos


def _title(report: EventReport, index: int) -> str:
    event = report.event
    if index == len(event.historical):
        return f"{date_text(event.monitor)}, monitor"
    role = ", reference" if index == len(event.historical) - 1 else ""
    return f"{date_text(event.historical[index])}{role}"


def _shrink(photo: np.ndarray, longest: int) -> np.ndarray:
    height, width = fit((photo.shape[0], photo.shape[1]), longest)
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)


def _flagged(report: EventReport, photo: np.ndarray) -> np.ndarray:
    """The photo with the binary result outlined, where there is one."""
    binary = report.binary
    if binary is None:
        return photo
    rows, columns = (nearest_pixels(old, new) for old, new in zip(report.images.shape, photo.shape[:2], strict=True))
    return outline(photo, binary.small[np.ix_(binary.rows[rows], binary.columns[columns])], FLAGGED)


def event_page(report: EventReport, photos: Sequence[Photo], max_width: int) -> str:
    """The page of an event."""
    event = report.event
    missing = f'<p class="notice">Incomplete: {text("; ".join(report.missing))}.</p>' if report.missing else ""
    body = f"""<header class="top"><a href="../index.html" class="brand">AnomalyCD</a>
<nav aria-label="Events"><a id="previous" rel="prev" hidden>← Previous</a>
<select id="jump" aria-label="Event"></select><a id="next" rel="next" hidden>Next →</a></nav></header>
<main class="event">
<h1>{text(event.name)} {category_tag(event.category)}</h1>
{_facts(report)}{missing}
<noscript><p class="notice">The comparison, the overlays and the threshold need JavaScript.</p></noscript>
<div class="layout"><div>{_viewer(report, photos)}{_strip(photos)}</div>
<div class="side">{_layers(report)}{_threshold(report)}{_regions(report)}</div></div>
</main>
<footer class="muted">Keys: <kbd>←</kbd> <kbd>→</kbd> previous and next event, <kbd>+</kbd> <kbd>−</kbd> zoom,
<kbd>0</kbd> whole image, <kbd>Esc</kbd> no region; in the image <kbd>Shift</kbd> and an arrow read out
a point.</footer>
<script type="application/json" id="data">{script_data(_data(report, photos, max_width))}</script>"""
    page_title = f"{event.name} – AnomalyCD"
    return page(page_title, body, "../", ["events.js", "tables.js", "viridis.js", "raster.js", "viewer.js", "event.js"])


def _facts(report: EventReport) -> str:
    (height, width), place = report.images.shape, report.place
    pixel = f", {place.pixel_area**0.5:.3g} m a pixel" if place.pixel_area else ""
    share = report.flagged / report.valid if report.flagged is not None and report.valid else None
    metres = report.flagged * place.pixel_area if report.flagged is not None and place.pixel_area else None
    facts = [
        ("Monitor", date_text(report.event.monitor)),
        ("Historical", f"{len(report.event.historical)} since {date_text(report.event.historical[0])}"),
        ("Size", f"{width} × {height} px{pixel}"),
        ("Centre", coordinates(place.centre) if place.centre else "not known"),
        ("CRS", place.crs or "none"),
        ("Area flagged", f"{area(metres)} ({percent(share)})" if metres is not None else percent(share)),
    ]
    if report.label:
        first, second = (score(scores and scores.f1) for scores in (report.stage1, report.stage2))
        facts.append(("F1, stage 1 → stage 2", f"{first} → {second}"))
    return f'<dl class="facts">{"".join(f"<div><dt>{a}</dt><dd>{text(b)}</dd></div>" for a, b in facts)}</dl>'


def _viewer(report: EventReport, photos: Sequence[Photo]) -> str:
    height, width = report.images.shape
    left, right = len(photos) - 2, len(photos) - 1
    return f"""<section class="card viewer" aria-label="Comparison">
<div class="bar"><label>Left {_choice("left", photos, left)}</label>
<label>Right {_choice("right", photos, right)}</label>
<span class="zoom" role="group" aria-label="Zoom"><button id="zoom-out" aria-label="Zoom out">−</button>
<output id="zoom">1×</output><button id="zoom-in" aria-label="Zoom in">+</button>
<button id="zoom-fit">Fit</button></span></div>
<div class="frame" id="frame" tabindex="0" role="group" aria-label="Image; shift and arrows read out a point">
<div class="stage" id="stage" style="--aspect:{width / height:.6f}">
<img id="left-photo" src="{photos[left].file}" alt="{text(photos[left].title)}" draggable="false">
<img id="right-photo" src="{photos[right].file}" alt="{text(photos[right].title)}" draggable="false">
<div id="overlays"></div><div id="pins"></div>
<span class="tag" id="left-tag"></span><span class="tag" id="right-tag"></span>
<div class="handle" id="handle"><i></i></div></div></div>
<label class="swipe"><span>Swipe</span>
<input type="range" id="swipe" min="0" max="100" value="50" step="0.5"></label>
<p id="readout" class="readout" aria-live="off">Point at the image for coordinates and scores.</p></section>"""


def _choice(side: str, photos: Sequence[Photo], chosen: int) -> str:
    options = "".join(
        f'<option value="{index}"{" selected" if index == chosen else ""}>{text(photo.title)}</option>'
        for index, photo in enumerate(photos)
    )
    return f'<select id="{side}">{options}</select>'


def _strip(photos: Sequence[Photo]) -> str:
    dates = "".join(
        f'<li data-photo="{index}"><img src="{photo.thumbnail}" alt="" loading="lazy"><span>{text(photo.title)}</span>'
        f'<span><button data-side="left" aria-label="{text(photo.title)} to the left">Left</button>'
        f'<button data-side="right" aria-label="{text(photo.title)} to the right">Right</button></span></li>'
        for index, photo in enumerate(photos)
    )
    return f'<section class="card"><h2>All dates</h2><ol class="strip" id="strip">{dates}</ol></section>'


def _layers(report: EventReport) -> str:
    present = set(report.maps)
    if report.curve:
        present.add("binary")
    if report.label:
        present.add("label")
    if report.curve and report.label:
        present.add("verdict")
    shown = "verdict" if "verdict" in present else "binary"
    rows = []
    for name, title in OVERLAYS.items():
        there = name in present
        about = "" if there else ' <small class="muted">missing</small>'
        rows.append(
            f'<li><label><input type="checkbox" data-layer="{name}"{" checked" if name == shown and there else ""}'
            f'{"" if there else " disabled"}> {title}{about}</label><input type="range" data-opacity="{name}" min="0" '
            f'max="100" value="80" aria-label="Opacity: {title}"{"" if there else " disabled"}>'
            f'<div class="legend" id="legend-{name}">{_legend(name)}</div></li>'
        )
    return f'<section class="card"><h2>Overlays</h2><ul class="layers">{"".join(rows)}</ul></section>'


def _legend(name: str) -> str:
    if name in ("change", "filtered", "anomaly"):
        return '<span>0</span><canvas width="256" height="1"></canvas><span class="top-score"></span>'
    if name == "verdict":
        return "".join(f'<span class="swatch {kind}">{title}</span>' for kind, title in VERDICTS)
    return f'<span class="swatch {name}">{"anomaly by the label" if name == "label" else "flagged by stage 2"}</span>'


def _threshold(report: EventReport) -> str:
    if report.curve is None:
        return ""
    curve = report.curve
    shown = ("Recall", "Precision", "F1") if report.label else ()
    figures = "".join(
        f'<div class="{name.lower()}"><dt>{name}</dt><dd id="{name.lower()}"></dd></div>' for name in shown
    )
    return f"""<section class="card"><h2>Threshold of stage 2</h2>
<div class="bar"><input type="range" id="threshold" min="0" max="{len(curve.thresholds) - 1}" value="{report.default}"
aria-label="Threshold of stage 2"><output id="threshold-value" for="threshold"></output>
<button id="threshold-reset">Back to {curve.thresholds[report.default]:g}</button></div>
<dl class="figures">{figures}<div class="flagged"><dt>Flagged</dt><dd id="flagged"></dd></div></dl>
<svg id="curve" viewBox="0 0 360 150" role="img" aria-label="Scores at every threshold"></svg></section>"""


def _regions(report: EventReport) -> str:
    if report.curve is None:
        return ""
    threshold = report.curve.thresholds[report.default]
    if not report.regions:
        return (
            f'<section class="card"><h2>Regions</h2><p class="muted">None at the threshold {threshold:g}.</p></section>'
        )
    metres = report.place.pixel_area
    head = ("#", "Score", "Highest", "Area", "Centroid")
    titles = "".join(f'<th scope="col" class="number"><button>{name}</button></th>' for name in head)
    rows = "".join(_region(index, region, metres) for index, region in enumerate(report.regions, 1))
    return f"""<section class="card"><div class="bar">
<h2>Regions <small class="muted">at the threshold {threshold:g}</small></h2>
<label class="option"><input type="checkbox" id="show-pins" checked> numbers in the image</label></div>
<div class="scroller tall"><table id="regions"><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>
<p class="muted">Score: the mean over the region. Centroid: pixels from the upper left. Click a row, or a region in the
image.</p></section>"""


def _region(number: int, region: Region, pixel_area: float | None) -> str:
    shown = area(region.pixels * pixel_area) if pixel_area else f"{count(region.pixels)} px"
    cells = (
        (number, f'<button aria-pressed="false" aria-label="Region {number}">{number}</button>'),
        (region.mean_score, f"{region.mean_score:.3f}"),
        (region.max_score, f"{region.max_score:.3f}"),
        (region.pixels, f'<span title="{count(region.pixels)} pixels">{shown}</span>'),
        (region.x, f"{region.x:.0f}, {region.y:.0f}"),
    )
    shown_cells = "".join(f'<td class="number" data-sort="{value}">{cell}</td>' for value, cell in cells)
    return f'<tr data-region="{number}">{shown_cells}</tr>'


def _data(report: EventReport, photos: Sequence[Photo], max_width: int) -> dict[str, object]:
    """What the page's script needs."""
    height, width = report.images.shape
    place, curve = report.place, report.curve
    data = page_rasters(report, max_width, config.REPORT_RASTER_BYTES)
    return data | {
        "slug": slug(report.event.name),
        "size": [width, height],
        "photos": [{"title": photo.title, "file": photo.file} for photo in photos],
        "transform": place.transform,
        "lattice": None if place.lattice is None else place.lattice.round(7).tolist(),
        "pixelArea": place.pixel_area,
        "pins": [[region.x / width, region.y / height] for region in report.regions[:MAX_PINS]],
        "curve": curve
        and {
            "thresholds": curve.thresholds,
            "default": report.default,
            "flagged": curve.flagged,
            "valid": report.valid,
            "scores": curve.scores(SETTINGS.background_weight) if report.label else None,
        },
        "category": CATEGORIES[report.event.category][0],
    }
