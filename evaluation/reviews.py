"""Writes the verdicts of reviewers, which the report's pages export, into the regions' polygons (docs/report.md)."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from osgeo import gdal, ogr

from evaluation.geopackage import JOURNALS, open_geopackage, set_fields, verify
from evaluation.polygons import LAYER
from rasters.gdal_output import close_dataset, written_by_gdal
from rasters.place import outlines_in_wgs84
from utils import EventError, UsageError

VERDICTS = ("accepted", "rejected", "uncertain")
FIELDS = ("verdict", "note", "reviewer")
SAME_SHAPE = 0.5  # least overlap (intersection over union) of a region before and after a rerun


class Review(NamedTuple):
    """What one reviewer says of one region."""

    event: str
    outline: ogr.Geometry  # in WGS 84; in pixels, y upwards, if the event has no usable CRS
    verdict: str  # of VERDICTS
    note: str
    reviewer: str
    time: str  # ISO 8601, or empty


class Judgement(NamedTuple):
    """What all reviewers together say of a region."""

    verdict: str  # of VERDICTS
    note: str
    reviewer: str


def read_reviews(paths: Iterable[Path]) -> list[Review]:
    """Read exported reviews. A file without reviewer counts as one reviewer, named after the file.

    Raises UsageError if a file is not an export of a report.
    """
    reviews = []
    for path in paths:
        try:
            features = json.loads(path.read_text(encoding="utf-8"))["features"]
            reviews += [_review(feature, path.stem) for feature in features]
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
            raise UsageError(f"{path}: is not a review that a report's page exported (GeoJSON)") from None
    return reviews


def _review(feature: Mapping[str, Any], reviewer: str) -> Review:
    values = {name: str(value or "") for name, value in feature["properties"].items()}
    outline = ogr.CreateGeometryFromJson(json.dumps(feature["geometry"]))
    if outline is None or values["verdict"] not in VERDICTS:
        raise ValueError
    name = values.get("reviewer") or reviewer
    return Review(values["event"], outline, values["verdict"], values.get("note", ""), name, values.get("time", ""))


def judge(reviews: Sequence[Review]) -> Judgement:
    """Return the verdict of the majority, `uncertain` after a tie, and who says what. `reviews`: of one region."""
    latest = {review.reviewer: review for review in sorted(reviews, key=lambda review: review.time)}
    votes = Counter(review.verdict for review in latest.values()).most_common(2)
    is_tie = len(votes) == 2 and votes[0][1] == votes[1][1]
    notes = [f"{name}: {review.note}" if len(latest) > 1 else review.note for name, review in latest.items()]
    noted = [note for note, review in zip(notes, latest.values(), strict=True) if review.note]
    return Judgement("uncertain" if is_tie else votes[0][0], "; ".join(noted), ", ".join(latest))


def match_reviews(
    outlines: Sequence[ogr.Geometry], reviews: Sequence[Review]
) -> tuple[dict[int, list[Review]], list[Review]]:
    """Return the reviews of each outline, by its index, and the reviews that fit none.

    A review belongs to the outline that it overlaps most, by at least SAME_SHAPE.
    """
    boxes = np.array([outline.GetEnvelope() for outline in outlines]).reshape(-1, 4)
    matched: dict[int, list[Review]] = {}
    unmatched = []
    for review in reviews:
        left, right, low, high = review.outline.GetEnvelope()
        near = (boxes[:, 0] < right) & (boxes[:, 1] > left) & (boxes[:, 2] < high) & (boxes[:, 3] > low)
        shared = {index: _overlap(outlines[index], review.outline) for index in np.flatnonzero(near).tolist()}
        best = max(shared, key=lambda index: shared[index], default=None)
        if best is None or shared[best] < SAME_SHAPE:
            unmatched.append(review)
        else:
            matched.setdefault(best, []).append(review)
    return matched, unmatched


def _overlap(first: ogr.Geometry, second: ogr.Geometry) -> float:
    """Return the intersection over union of two outlines; 0 if one is damaged."""
    with suppress(RuntimeError, AttributeError):  # AttributeError: None, an empty result
        shared = first.Intersection(second).Area()
        return shared / (first.Area() + second.Area() - shared)
    return 0.0


def add_reviews(path: Path, reviews: Sequence[Review]) -> tuple[int, list[Review]]:
    """Write the verdicts into a file of regions, which is replaced as a whole.

    Earlier verdicts in the file are removed. Returns the number of regions with a verdict, and the reviews that fit no
    region. Raises EventError if the file is missing, damaged, or open in another program.
    """
    if any(path.with_name(path.name + suffix).exists() for suffix in JOURNALS):
        raise EventError(f"{path}: is open in another program; close it there")
    if not path.exists():
        raise EventError(f"{path}: not found; run stage 2 first")
    with written_by_gdal(path) as part:
        shutil.copyfile(path, part)
        dataset = open_geopackage(part, gdal.OF_UPDATE)
        with close_dataset(dataset):
            layer = dataset.GetLayerByName(LAYER)
            if layer is None:
                raise EventError(f"{path}: has no layer {LAYER!r}; run stage 2 again")
            numbers, outlines = _outlines(layer)
            placed = outlines_in_wgs84(outlines, layer.GetSpatialRef()) or outlines
            matched, unmatched = match_reviews(placed, reviews)
            known = {field.GetName() for field in layer.schema}
            for name in FIELDS:
                if name not in known:
                    layer.CreateField(ogr.FieldDefn(name, ogr.OFTString))
            dataset.StartTransaction()
            _write_judgements(layer, numbers, matched)
            dataset.CommitTransaction()
        verify(part, {LAYER: len(numbers)})
    return len(matched), unmatched


def _outlines(layer: ogr.Layer) -> tuple[list[int], list[ogr.Geometry]]:
    """Return the IDs of all features, and copies of their outlines, since a feature must not outlive its file."""
    found = [(feature.GetFID(), feature.GetGeometryRef().Clone()) for feature in layer]
    return [number for number, _ in found], [outline for _, outline in found]


def _write_judgements(layer: ogr.Layer, numbers: Sequence[int], matched: Mapping[int, Sequence[Review]]) -> None:
    for index, number in enumerate(numbers):
        feature = layer.GetFeature(number)
        values = judge(matched[index]) if index in matched else (None, None, None)
        set_fields(feature, zip(FIELDS, values, strict=True))
        layer.SetFeature(feature)


class ReviewedRegion(NamedTuple):
    """A region with a verdict, as its file has it."""

    number: int
    pixels: int
    max_score: float
    judgement: Judgement


def read_judgements(path: Path) -> list[ReviewedRegion]:
    """Return the regions of a file that have a verdict; none if the file is missing, damaged or not reviewed."""
    with suppress(RuntimeError, AttributeError):  # AttributeError: no such layer
        dataset = open_geopackage(path)
        layer = dataset.GetLayerByName(LAYER)
        if not set(FIELDS) <= {field.GetName() for field in layer.schema}:
            return []
        return [
            ReviewedRegion(
                feature["region"],
                feature["area_pixels"],
                feature["max_score"],
                Judgement(*(feature[name] or "" for name in FIELDS)),
            )
            for feature in layer
            if feature["verdict"] in VERDICTS
        ]
    return []
