"""Gathers the report's data of one event: scores, regions, missing files, and rasters for its page."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from evaluation.explanations import ExplanationMap, RegionExplanation, explain_regions
from evaluation.regions import Region, measure_regions
from img_io import EventImages, Label, open_event
from rasters.maps import ScoreMap, find_map, read_parameters
from rasters.place import Place, find_place
from rasters.raster import Raster, read_strips
from rasters.resize import nearest_pixels, resize_nearest
from report.pictures import fitted_shape, pack, pack_masks
from utils import Event, EventError, date_text

SETTINGS = EvalSettings()  # the report shows the published evaluation
THRESHOLD_STEPS = 100  # between 0 and 1


@dataclass
class EventReport:
    """The report's data of one event."""

    event: Event
    images: EventImages
    place: Place
    maps: dict[str, ScoreMap]  # by `change`, `filtered` and `anomaly`; existing maps only
    label: Label | None
    missing: list[str]
    stage1: Scores | None = None
    curve: ThresholdCurve | None = None
    regions: list[Region] = field(default_factory=list)
    explanations: list[RegionExplanation] = field(default_factory=list)  # of `regions`; empty without explanation map
    origin: list[tuple[str, str]] = field(default_factory=list)  # catalog and licence, of an event from a catalog
    region_numbers: np.ndarray | None = None  # region of each pixel of the small map, from 1; 0 for none

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
        return self.curve.thresholds.index(SETTINGS.stage2_threshold)

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
    made_with = _parameters(paths[kind] for kind in ("anomaly", "change") if kind in maps)
    images = open_event(event, recorded_options(made_with))
    label, label_problem = None, "no label"
    try:
        label = open_event_label(event, made_with)
        for _ in read_strips(label) if label else ():
            pass  # finds values that are not whole
    except EventError as error:
        label, label_problem = None, f"label not used: {error}"
    for raster in (*maps.values(), *([label] if label else [])):
        if raster.shape != images.shape:
            raise EventError(
                f"{raster.path}: its size differs from that of the images; run both stages on these images again"
            )
    report = EventReport(event, images, find_place(images.georeference, images.shape), maps, label, [])
    report.missing += [f"no {path.name}" for kind, path in paths.items() if kind not in maps]
    if label is None and event.category != 0:
        report.missing.append(label_problem)
    _find_origin(report)
    _measure(report)
    _explain(report, result_root / event.name / config.EXPLANATION_NAME)
    return report


def _parameters(paths: Iterable[Path]) -> dict[str, Any]:
    """Return the parameters recorded in the first map; empty if there is no map or no record."""
    return next((read_parameters(path) or {} for path in paths), {})


def _find_origin(report: EventReport) -> None:
    """Fill in where the images come from, if `get_event.py` fetched them."""
    path = report.event.folder / config.EVENT_RECORD_NAME
    if not path.exists():
        return
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        report.origin = [("Source", str(record["catalog"])), ("Licence", str(record["licence"] or "not given"))]
    except (OSError, ValueError, KeyError, TypeError):
        report.missing.append(f"{path.name} cannot be read")


def _measure(report: EventReport) -> None:
    """Fill in scores, curve and regions, as far as the maps exist."""
    if "filtered" in report.maps and report.label:
        filtered = report.maps["filtered"]
        changed = binarize_by_quantile(filtered, SETTINGS.quantile_threshold)
        report.stage1 = score_binary_map(changed, filtered, report.label, SETTINGS.background_weight)
    if "anomaly" in report.maps:
        report.curve = report_curve(report.maps["anomaly"], report.label)
        binary = report.curve.maps[report.default]
        report.regions, report.region_numbers = measure_regions(binary, report.maps["anomaly"])


def _explain(report: EventReport, path: Path) -> None:
    """Fill in the explanations of the regions, if there is an explanation map; an outdated one is only named."""
    if not path.exists() or report.binary is None or report.region_numbers is None:
        return
    explanation, anomalies = ExplanationMap(path), report.maps["anomaly"]
    dates = tuple(date_text(image) for image in report.event.historical)
    is_current = explanation.shape == anomalies.shape and explanation.dates == dates
    if not is_current or read_parameters(path) != read_parameters(anomalies.path):
        report.missing.append("the explanation is outdated")
        return
    pixels = [region.pixels for region in report.regions]
    report.explanations = explain_regions(explanation, report.binary, report.region_numbers, pixels)


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
    masks = np.stack([one.small for one in curve.maps])
    return {"shape": masks.shape[1:], "masks": pack_masks(masks), "regions": numbers is not None and pack(numbers)}
