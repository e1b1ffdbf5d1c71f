"""Writes the page of one event and its pictures."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from osgeo import ogr

import config
from evaluation.footprint_layer import SHARES
from evaluation.outlines import outline_regions
from rasters.place import outlines_in_wgs84, pixel_metres
from rasters.resize import nearest_pixels
from report.event_report import SETTINGS, EventReport, last_steps, page_rasters, slug
from report.html import SHIPPED, area, coordinates, made_with_text, percent, render, score, script_data, write_text
from report.pictures import encode_photo, fitted_shape, outline, paint_gaps, shrink_image
from report.style import OUTCOMES
from utils import CATEGORIES, atomic_write, date_text

THUMBNAIL, OVERVIEW = 200, 360  # longer sides, pixels
FLAGGED = (255, 60, 160)
MAX_PINS = 60  # regions that are numbered in the image
COLUMNS = {"number": "#", "score": "Score", "novelty": "Novelty", "area": "Area", "verdict": "Verdict"}  # of regions
OVERLAYS = {  # titles by layer, from bottom to top
    "change": "Change map, stage 1",
    "filtered": "Filtered change map",
    "anomaly": "Anomaly map, stage 2",
    "binary": "Binary result",
    "label": "Label",
    "outcome": "Result against the label",
}


class Photo(NamedTuple):
    """The image of one date on the page."""

    title: str
    file: str  # relative to the page
    thumbnail: str
    coverage: float  # share of its pixels that hold data, 0 to 1


class Overlay(NamedTuple):
    """An overlay that the page can show."""

    name: str
    title: str
    shown: bool  # when the page is opened


def write_event_page(root: Path, report: EventReport, max_width: int, photo_done: Callable[[], object]) -> None:
    """Write an event's pictures and its page to a report's folder; `photo_done` is called after each date."""
    name = slug(report.event.name)
    photos = _write_photos(root / "events", name, report, max_width, photo_done)
    write_text(root / "events" / name / "outlines.js", _outlines_script(report))
    write_text(root / "events" / f"{name}.html", event_page(report, photos, max_width))


def _write_photos(
    folder: Path, name: str, report: EventReport, max_width: int, photo_done: Callable[[], object]
) -> list[Photo]:
    images = (*report.images.historical, report.images.monitor)
    size, max_bytes = fitted_shape(report.images.shape, max_width), config.REPORT_PHOTO_BYTES // len(images)
    photos = []
    for index, image in enumerate(images):
        shrunk = shrink_image(image, size)
        pixels = paint_gaps(shrunk)
        photo = Photo(
            _title(report, index), f"{name}/photo{index}.jpg", f"{name}/thumbnail{index}.jpg", shrunk.coverage
        )
        atomic_write(folder / photo.file, encode_photo(pixels, max_bytes))
        atomic_write(folder / photo.thumbnail, encode_photo(_shrink(pixels, THUMBNAIL), 40_000))
        photos.append(photo)
        photo_done()
    atomic_write(folder / name / "overview.jpg", encode_photo(_flagged(report, _shrink(pixels, OVERVIEW)), 80_000))
    return photos


def _title(report: EventReport, index: int) -> str:
    event = report.event
    if index == len(event.historical):
        return f"{date_text(event.monitor)}, monitor"
    role = ", reference" if index == len(event.historical) - 1 else ""
    return f"{date_text(event.historical[index])}{role}"


def _shrink(photo: np.ndarray, max_side: int) -> np.ndarray:
    height, width = fitted_shape((photo.shape[0], photo.shape[1]), max_side)
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)


def _flagged(report: EventReport, photo: np.ndarray) -> np.ndarray:
    """Return the photo with the binary result outlined, if there is one."""
    binary = report.binary
    if binary is None:
        return photo
    rows, columns = (nearest_pixels(old, new) for old, new in zip(report.images.shape, photo.shape[:2], strict=True))
    return outline(photo, binary.small[np.ix_(binary.rows[rows], binary.columns[columns])], FLAGGED)


def event_page(report: EventReport, photos: Sequence[Photo], max_width: int) -> str:
    """Return the HTML of an event's page."""
    return render(
        "event.html",
        "../",
        ["events.js", "colors.js", *(name for name in SHIPPED if name.endswith(".js"))],
        name=report.event.name,
        category=report.event.category,
        facts=_facts(report),
        missing=report.missing,
        photos=photos,
        aspect=report.images.shape[1] / report.images.shape[0],
        layers=_layers(report),
        labelled=report.label is not None,
        thresholds=report.curve.thresholds if report.curve else [],
        default=report.default if report.curve else 0,
        region_count=len(report.regions),
        columns={name: title for name, title in COLUMNS.items() if name != "novelty" or report.explanations},
        placed=report.place.lattice is not None,
        outcomes=OUTCOMES,
        footprints=report.footprints,
        shares=SHARES,
        made_with=made_with_text(report.made_with),
        explained=bool(report.explanations),
        pixel_area=report.place.pixel_area,
        data=script_data(_data(report, photos, max_width)),
    )


def _facts(report: EventReport) -> list[tuple[str, str]]:
    """Return the names and values under the page's heading."""
    (height, width), place = report.images.shape, report.place
    number = len(report.event.historical)
    pixel = f", {place.pixel_area**0.5:.3g} m per pixel" if place.pixel_area else ""
    share = report.flagged / report.valid if report.flagged is not None and report.valid else None
    metres = report.flagged * place.pixel_area if report.flagged is not None and place.pixel_area else None
    facts = [
        ("Monitor", date_text(report.event.monitor)),
        ("Historical", f"{number} image{'s' if number > 1 else ''} since {date_text(report.event.historical[0])}"),
        ("Size", f"{width} × {height} px{pixel}"),
        ("Centre", coordinates(place.centre) if place.centre else "unknown"),
        ("CRS", place.crs or "none"),
        ("Area flagged", f"{area(metres)} ({percent(share)})" if metres is not None else percent(share)),
    ]
    if report.event.has_roles_by_order:
        facts.append(("Roles, by the order of the names", report.event.roles))
    if report.label:
        first, second = (score(scores and scores.f1) for scores in (report.stage1, report.stage2))
        facts.append(("F1, stage 1 → stage 2", f"{first} → {second}"))
    return facts + report.origin


def _layers(report: EventReport) -> list[Overlay]:
    present = set(report.maps)
    if report.curve:
        present.add("binary")
    if report.label:
        present.add("label")
    if report.curve and report.label:
        present.add("outcome")
    shown = "outcome" if "outcome" in present else "binary"
    return [Overlay(name, title, name == shown) for name, title in OVERLAYS.items() if name in present]


def _data(report: EventReport, photos: Sequence[Photo], max_width: int) -> dict[str, object]:
    """Return the data for the page's script."""
    height, width = report.images.shape
    place, curve = report.place, report.curve
    data = page_rasters(report, max_width, config.REPORT_RASTER_BYTES)
    name = report.event.name.encode("utf-8", "replace").decode()
    identity = json.dumps([name, report.event.monitor.name, width, height, place.transform])
    return data | {
        "slug": slug(report.event.name),
        "name": name,
        "reviewKey": f"anomalycd-{hashlib.sha256(identity.encode()).hexdigest()[:16]}",  # of the browser's storage
        "size": [width, height],
        "photoWidth": fitted_shape(report.images.shape, max_width)[1],
        "pixelMetres": pixel_metres(report.images.georeference, report.images.shape),
        "photos": [{"title": photo.title, "file": photo.file} for photo in photos],
        "transform": place.transform,
        "lattice": None if place.lattice is None else place.lattice.round(7).tolist(),
        "pixelArea": place.pixel_area,
        "pins": MAX_PINS,
        "regions": _regions(report) if report.regions else None,
        "curve": curve
        and {
            "thresholds": curve.thresholds,
            "default": report.default,
            "flagged": curve.flagged,
            "valid": report.valid,
            "scores": curve.scores(SETTINGS.background_weight) if report.label else None,
        },
        "explanation": _explanation(report) if report.explanations else None,
        "category": CATEGORIES[report.event.category][0],
    }


def _regions(report: EventReport) -> dict[str, object]:
    """Return the values of all regions, one list per value."""
    regions, usual = report.regions, [explanation.usual_score for explanation in report.explanations]
    return {
        "mean": [round(region.mean_score, 4) for region in regions],
        "max": [round(region.max_score, 4) for region in regions],
        "pixels": [region.pixels for region in regions],
        "x": [round(region.x, 1) for region in regions],
        "y": [round(region.y, 1) for region in regions],
        "novelty": [
            None if score is None else round(region.mean_score - score, 4)
            for region, score in zip(regions, usual, strict=True)
        ]
        if usual
        else None,
        "last": last_steps(report),
        "verdicts": [[region.number, *region.judgement] for region in report.reviewed],
    }


def _outlines_script(report: EventReport) -> str:
    """Return a script with the outlines of the regions as GeoJSON, in WGS 84 or else in pixels with y upwards."""
    numbers, binary, count = report.region_numbers, report.binary, len(report.regions)
    outlines: Sequence[ogr.Geometry] = []
    if numbers is not None and binary is not None:
        outlines, crs = outline_regions(binary, numbers, count, report.images.georeference)
        outlines = outlines_in_wgs84(outlines, crs) or outlines
    shapes = [json.loads(outline.ExportToJson(["COORDINATE_PRECISION=7"])) for outline in outlines]
    return f'"use strict";\nconst OUTLINES = {script_data(shapes)};\n'


def _explanation(report: EventReport) -> dict[str, object]:
    """Return the historical dates, and the comparison of each region with them."""
    return {
        "dates": [date_text(image) for image in report.event.historical],
        "regions": [
            {
                "similarities": [*map(_rounded, explanation.similarities)],
                "best": explanation.most_similar,
                "usual": _rounded(explanation.usual_score),
            }
            for explanation in report.explanations
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
