"""Gathers the report's data of one event: scores, regions, missing files, and rasters for its page."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import config
from eval_metrics import (
    BinaryMap,
    Scores,
    ThresholdCurve,
    binarize_by_quantile,
    score_binary_map,
    threshold_curve,
)
from evaluation.event_maps import EvalSettings, open_event_label, recorded_options
from evaluation.explanations import RegionExplanation, current_explanation, explain_regions
from evaluation.footprint_layer import FootprintCounts, count_footprints
from evaluation.map_origin import map_origin
from evaluation.polygons import are_split
from evaluation.regions import Region, measure_regions
from evaluation.reviews import ReviewedRegion, read_judgements
from img_io import EventImages, Label, open_event
from rasters.maps import ScoreMap, find_map, read_parameters
from rasters.place import Place, find_place
from rasters.raster import Raster, read_strips
from rasters.resize import nearest_pixels, resize_nearest
from report.pictures import fitted_shape, pack, pack_masks
from utils import Event, EventError

SETTINGS = EvalSettings()  # the report shows the published evaluation
THRESHOLD_STEPS = 100  # between 0 and 1


class StageResults(NamedTuple):
    """What is measured of an event's maps, as far as they exist."""

    stage1: Scores | None  # of stage 1; None without a filtered map or a label
    curve: ThresholdCurve | None  # None without an anomaly map
    regions: list[Region]
    region_numbers: np.ndarray | None  # region of each pixel of the small map, from 1; 0 for none


@dataclass(frozen=True)
class EventReport:
    """The report's data of one event."""

    event: Event
    images: EventImages
    place: Place
    maps: dict[str, ScoreMap]  # by `change`, `filtered` and `anomaly`; existing maps only
    label: Label | None
    missing: list[str]
    stage1: Scores | None  # this and the next three: see StageResults
    curve: ThresholdCurve | None
    regions: list[Region]
    region_numbers: np.ndarray | None
    explanations: list[RegionExplanation]  # of the regions; empty without explanation map
    reviewed: list[ReviewedRegion]  # the regions with a verdict, by the polygons' file
    footprints: FootprintCounts | None  # None: not measured
    made_with: dict[str, str]  # see map_origin
    origin: list[tuple[str, str]]  # catalog and licence, of an event from a catalog

    @property
    def stage2(self) -> Scores | None:
        """Stage 2's scores at the published threshold; None without an anomaly map or a label."""
        if not self.curve or not self.binary or not self.label:
            return None
        return self.curve.counts.score(self.binary, SETTINGS.background_weight)

    @property
    def default(self) -> int:
        """The index of the published threshold in the curve."""
        assert self.curve
        return _published(self.curve)

    @property
    def binary(self) -> BinaryMap | None:
        """The binary result at the published threshold; None without an anomaly map."""
        return self.curve.maps[self.default] if self.curve else None

    @property
    def flagged(self) -> int | None:
        """Number of pixels flagged at the published threshold; None without an anomaly map."""
        return self.curve.counts.flagged(self.binary) if self.curve and self.binary else None

    @property
    def valid(self) -> int | None:
        """Number of pixels of the anomaly map with data; None without an anomaly map."""
        return int(self.curve.counts.valid.sum()) if self.curve else None


def slug(name: str) -> str:
    """Return a unique name for an event's files and URLs: lower-case letters, digits, `_` and `-` only."""
    plain = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:60]
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return plain if plain == name else f"{plain}-{digest}"


def read_report(event: Event, stage1_root: Path, result_root: Path) -> EventReport:
    """Read an event and its existing maps.

    Raises EventError if a file is damaged, if several files may be one of the maps, or if sizes differ.
    """
    paths = {
        "change": find_map(stage1_root / event.name / config.CHANGE_MAP_NAME),
        "filtered": find_map(result_root / event.name / config.FILTERED_MAP_NAME),
        "anomaly": find_map(result_root / event.name / config.ANOMALY_MAP_NAME),
    }
    maps = {kind: ScoreMap(path) for kind, path in paths.items() if path.exists()}
    parameters = _parameters(paths[kind] for kind in ("anomaly", "change") if kind in maps)
    images = open_event(event, recorded_options(parameters))
    label, unusable_label = None, []
    try:
        label = open_event_label(event, parameters)
        for _ in read_strips(label) if label else ():
            pass  # finds values that are not whole
    except EventError as error:
        label, unusable_label = None, [f"label not used: {error}"]
    for raster in (*maps.values(), *([label] if label else [])):
        if raster.shape != images.shape:
            raise EventError(
                f"{raster.path}: its size differs from that of the images; run both stages on these images again"
            )
    missing = [f"no {path.name}" for kind, path in paths.items() if kind not in maps] + unusable_label
    regions_path = result_root / event.name / config.REGIONS_NAME
    results = _measure(maps, label, are_split(regions_path))
    explanations, outdated = _explain(event, maps, results, result_root / event.name / config.EXPLANATION_NAME)
    origin, unreadable = _find_origin(event.folder / config.EVENT_RECORD_NAME)
    missing += [*unreadable, *outdated]
    place = find_place(images.georeference, images.shape)
    pixels = dict(enumerate((region.pixels for region in results.regions), 1))
    # Polygons that were made with other settings have other regions.
    reviewed = [region for region in read_judgements(regions_path) if pixels.get(region.number) == region.pixels]
    footprints = count_footprints(result_root / event.name / config.FOOTPRINTS_NAME)
    made_with = next((map_origin(maps[kind].path) for kind in ("anomaly", "change") if kind in maps), {})
    return EventReport(
        event, images, place, maps, label, missing, *results, explanations, reviewed, footprints, made_with, origin
    )


def _parameters(paths: Iterable[Path]) -> dict[str, Any]:
    """Return the parameters recorded in the first map; empty if there is no map or no record."""
    return next((read_parameters(path) or {} for path in paths), {})


def _find_origin(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return where the images come from, if `get_event.py` fetched them, and what is missing. `path`: its record."""
    if not path.exists():
        return [], []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return [("Source", str(record["catalog"])), ("Licence", str(record["licence"] or "not given"))], []
    except (OSError, ValueError, KeyError, TypeError):
        return [], [f"{path.name} cannot be read"]


def _measure(maps: dict[str, ScoreMap], label: Label | None, split: bool) -> StageResults:
    """Return scores, curve and regions, as far as the maps exist. `split`: as the regions of the polygons are."""
    stage1 = None
    if "filtered" in maps and label:
        changed = binarize_by_quantile(maps["filtered"], SETTINGS.quantile_threshold)
        stage1 = score_binary_map(changed, maps["filtered"], label, SETTINGS.background_weight)
    if "anomaly" not in maps:
        return StageResults(stage1, None, [], None)
    curve = report_curve(maps["anomaly"], label)
    regions, numbers = measure_regions(curve.maps[_published(curve)], maps["anomaly"], split)
    return StageResults(stage1, curve, regions, numbers)


def _published(curve: ThresholdCurve) -> int:
    """Return the index of the published threshold in a curve."""
    return curve.thresholds.index(SETTINGS.stage2_threshold)


def _explain(
    event: Event, maps: dict[str, ScoreMap], results: StageResults, path: Path
) -> tuple[list[RegionExplanation], list[str]]:
    """Return the explanations of the regions, if there is an explanation map, and what is missing.

    An outdated map is only named.
    """
    if not path.exists() or results.curve is None or results.region_numbers is None:
        return [], []
    explanation = current_explanation(path, event, maps["anomaly"])
    if explanation is None:
        return [], ["the explanation is outdated"]
    binary, pixels = results.curve.maps[_published(results.curve)], [region.pixels for region in results.regions]
    return explain_regions(explanation, binary, results.region_numbers, pixels), []


def report_curve(anomalies: Raster, label: Raster | None) -> ThresholdCurve:
    """Binarize an anomaly map at thresholds from 0 to 1, and at the published one."""
    steps = {step / THRESHOLD_STEPS for step in range(THRESHOLD_STEPS + 1)}
    return threshold_curve(anomalies, label, sorted(steps | {SETTINGS.stage2_threshold}), **SETTINGS.cleaning)


def page_rasters(report: EventReport, max_side: int, max_bytes: int) -> dict[str, Any]:
    """Pack the maps, label and masks of an event for its page's script.

    Maps and label are sampled (nearest pixel) on one grid, whose longer side is at most `max_side` pixels. The grid is
    reduced until the maps take at most `max_bytes`, or its side is at most 256 pixels.
    """
    fixed = _masks(report.curve, report.region_numbers) if report.curve else None
    while True:
        grid = fitted_shape(report.images.shape, max_side)
        packed = {kind: pack(resize_nearest(raster, grid)) for kind, raster in report.maps.items()}
        label = report.label and pack_masks((resize_nearest(report.label, grid) > 1)[None])
        if sum(map(len, packed.values())) <= max_bytes or max_side <= 256:
            break
        max_side = max_side * 7 // 10
    rows, columns = (nearest_pixels(old, new) for old, new in zip(report.images.shape, grid, strict=True))
    data = {"grid": grid, "rows": rows.tolist(), "columns": columns.tolist(), "maps": packed, "label": label}
    if report.curve and fixed:
        binary = report.curve.maps[0]
        fixed |= {"rows": binary.rows[rows].tolist(), "columns": binary.columns[columns].tolist()}
    return data | {"binary": fixed}


def _masks(curve: ThresholdCurve, numbers: np.ndarray | None) -> dict[str, Any]:
    masks = np.stack([binary.small for binary in curve.maps])
    # The first pixel of every row and column of the small map, and the end of the last one.
    edges = [
        np.searchsorted(starts, np.arange(length + 1)).tolist()
        for starts, length in zip((curve.maps[0].rows, curve.maps[0].columns), masks.shape[1:], strict=True)
    ]
    return {
        "shape": masks.shape[1:],
        "masks": pack_masks(masks),
        "regions": numbers is not None and pack(numbers),
        "rowEdges": edges[0],
        "columnEdges": edges[1],
    }


def last_steps(report: EventReport) -> list[int]:
    """Return the index of the highest threshold at which a part of each region is left."""
    assert report.curve is not None
    assert report.region_numbers is not None
    highest = np.zeros(report.region_numbers.shape, np.int64)
    for step, binary in enumerate(report.curve.maps):
        highest[binary.small] = step
    last = np.zeros(len(report.regions) + 1, np.int64)
    np.maximum.at(last, report.region_numbers, highest)
    return last[1:].tolist()
