"""Measures the footprints of a vector file, such as buildings, on an event's maps (docs/footprints.md)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from osgeo import ogr

import config
from eval_metrics import BinaryMap
from evaluation.coverage import highest_of_spans, pixel_coverage, row_sums, sum_spans
from evaluation.event_maps import EvalSettings, open_event_maps
from evaluation.explanations import NOT_COMPARED, ExplanationMap, current_explanation
from evaluation.footprint_file import FootprintFile, open_footprints, signed_area
from evaluation.footprint_layer import VALUES, write_footprints
from rasters.maps import ScoreMap
from rasters.raster import STRIP_ROWS
from utils import LOG, Event, Window

CHUNK = 2048  # footprints whose outlines are in memory at a time


class EventRasters(NamedTuple):
    """What footprints are measured on, all of one size."""

    scores: ScoreMap
    binary: BinaryMap
    explanation: ExplanationMap | None  # None: missing or outdated


def open_event_rasters(event: Event, result_root: Path) -> EventRasters:
    """Open an event's maps. Raises EventError if one is missing or damaged."""
    maps = open_event_maps(event, result_root, EvalSettings())
    explanation = current_explanation(result_root / event.name / config.EXPLANATION_NAME, event, maps.anomalies)
    return EventRasters(maps.anomalies, maps.anomalous, explanation)


class _Outlines:
    """The outlines of a chunk of footprints with one buffer, as edges in pixels."""

    def __init__(self, rings: Sequence[list[np.ndarray]], width: int) -> None:
        """`rings`: of each footprint; empty if it has no area. `width`: of the image, pixels."""
        owners = [np.full(len(ring) - 1, number) for number, outline in enumerate(rings) for ring in outline]
        every = [ring for outline in rings for ring in outline]
        self.owner = np.concatenate([np.zeros(0, np.intp), *owners]).astype(np.intp)
        self.starts = np.concatenate([np.zeros((0, 2)), *(ring[:-1] for ring in every)])
        self.ends = np.concatenate([np.zeros((0, 2)), *(ring[1:] for ring in every)])
        points = [np.concatenate(outline) if outline else np.zeros((1, 2)) for outline in rings]
        low, high = (np.array([end(part, axis=0) for part in points]).reshape(-1, 2) for end in (np.min, np.max))
        first, last = np.floor(low).clip(0).astype(np.intp), np.ceil(high).clip(0).astype(np.intp)
        self.boxes = np.stack([first[:, 0], np.maximum(last[:, 0].clip(0, width), first[:, 0])], axis=1)
        self.rows = np.stack([first[:, 1], last[:, 1]], axis=1)
        self.area = np.array([sum(map(signed_area, outline)) for outline in rings])

    def touch(self, height: int) -> np.ndarray:
        """Return which footprints have a part in an image of so many rows, (footprints,) bool."""
        in_rows = (self.rows[:, 0] < height) & (self.rows[:, 1] > 0)
        return in_rows & (self.boxes[:, 1] > self.boxes[:, 0]) & (self.area > 0)


class _Sums:
    """What is summed up over the pixels of footprints; each is (footprints,) float64, weighted by covered area."""

    def __init__(self, count: int) -> None:
        self.valid, self.flagged, self.score, self.compared, self.usual = np.zeros((5, count))
        self.highest = np.full(count, -np.inf)

    def values(self, area: np.ndarray, is_explained: bool) -> np.ndarray:
        """Return (footprints, values) in the order of VALUES; NaN where there is none. `area`: in pixels."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.score / self.valid
            novelty = mean - self.usual / self.compared if is_explained else np.full(len(area), np.nan)
            highest = np.where(self.valid > 0, self.highest, np.nan)
            without = np.where(area > 0, np.clip(1 - self.valid / area, 0, 1), np.nan)
            return np.stack([self.flagged / self.valid, mean, highest, novelty, without], axis=1)


class _Rows:
    """The pixels of some rows of the rasters, prepared for spans."""

    def __init__(self, rasters: EventRasters, first: int, last: int) -> None:
        window = Window(0, first, rasters.scores.shape[1], last - first)
        scores = rasters.scores.read(window)
        valid = ~np.isnan(scores)
        self.rows = (first, last)
        self._highest = np.where(valid, scores, -np.inf)
        sources = {"valid": valid, "flagged": valid & rasters.binary.read(window), "score": np.where(valid, scores, 0)}
        if rasters.explanation is not None:
            usual = rasters.explanation.read_bands([len(rasters.explanation.dates) + 1], window)[..., 0]
            known = valid & (usual != NOT_COMPARED)
            sources |= {"compared": known, "usual": np.where(known, usual, 0)}
        self._sums = {name: row_sums(values) for name, values in sources.items()}

    def add(self, outlines: _Outlines, sums: _Sums) -> None:
        """Add these pixels to the sums of the footprints."""
        first, _ = self.rows
        spans = pixel_coverage(outlines.starts, outlines.ends, outlines.owner, outlines.boxes, self.rows)
        owner, spans = spans.polygon, spans._replace(row=spans.row - first)
        for name, row_totals in self._sums.items():
            total = getattr(sums, name)
            total += np.bincount(owner, sum_spans(row_totals, spans), len(total))
        np.maximum.at(sums.highest, owner, highest_of_spans(self._highest, spans))


def _measure(by_buffer: Sequence[_Outlines], rasters: EventRasters) -> np.ndarray:
    """Return the values of footprints with each buffer, (footprints, buffers, values), see VALUES."""
    height, count = rasters.scores.shape[0], len(by_buffer[0].area)
    all_sums = [_Sums(count) for _ in by_buffer]
    rows = np.concatenate([outlines.rows[outlines.touch(height)] for outlines in by_buffer])
    if len(rows):
        top, bottom = int(rows[:, 0].min()), int(min(rows[:, 1].max(), height))
        for first in range(top - top % STRIP_ROWS, bottom, STRIP_ROWS):
            prepared = _Rows(rasters, first, min(first + STRIP_ROWS, bottom))
            for outlines, sums in zip(by_buffer, all_sums, strict=True):
                prepared.add(outlines, sums)
    is_explained = rasters.explanation is not None
    return np.stack(
        [sums.values(outlines.area, is_explained) for outlines, sums in zip(by_buffer, all_sums, strict=True)], axis=1
    )


def measure_footprints(
    file: FootprintFile, rasters: EventRasters, buffers: Sequence[float], done: Callable[[int], object]
) -> tuple[np.ndarray, np.ndarray]:
    """Measure all footprints in the event's extent; `done` is called with the number of those that are finished.

    Returns their feature IDs, (n,) int64, in the order of the file, and their values, (n, buffers, values) float64, see
    VALUES; NaN where there is none. Footprints beside the image and damaged ones are left out; messages name them.
    """
    places = [(feature.GetFID(), _middle(feature.GetGeometryRef())) for feature in file.layer]
    values = np.full((len(places), len(buffers), len(VALUES)), np.nan)
    touching, damaged = np.zeros(len(places), bool), 0
    order = sorted(range(len(places)), key=lambda number: places[number][1])  # neighbours share the rows that are read
    for start in range(0, len(order), CHUNK):
        chunk = np.array(order[start : start + CHUNK])
        found = [file.rings(places[number][0], buffers) for number in chunk]
        damaged += sum(rings is None for rings in found)
        by_buffer = [
            _Outlines([rings[index] if rings else [] for rings in found], rasters.scores.shape[1])
            for index in range(len(buffers))
        ]
        values[chunk] = _measure(by_buffer, rasters)
        touching[chunk] = np.any([outlines.touch(rasters.scores.shape[0]) for outlines in by_buffer], axis=0)
        done(len(chunk))
    if damaged:
        LOG.warning("%s: %d footprints are damaged or empty and are left out", file.path, damaged)
    numbers = np.array([number for number, _ in places], np.int64)
    return numbers[touching], values[touching]


def _middle(geometry: ogr.Geometry | None) -> float:
    if geometry is None or geometry.IsEmpty():
        return 0.0
    _, _, low, high = geometry.GetEnvelope()
    return low + high


def add_footprints(
    event: Event, path: Path, result_root: Path, buffers: Sequence[float], done: Callable[[int], object]
) -> str | None:
    """Measure a file's footprints on an event's maps and write AnomalyCD_footprints.gpkg beside these.

    Returns None, or the reason why nothing was written. Raises EventError, and UsageError as `open_footprints` does.
    """
    rasters = open_event_rasters(event, result_root)
    file = open_footprints(path, rasters.scores, max(buffers))
    numbers, values = measure_footprints(file, rasters, buffers, done)
    if not len(numbers):
        return f"no footprint of {path} has a part in its image (points and lines need a buffer: --footprint-buffers)"
    write_footprints(result_root / event.name / config.FOOTPRINTS_NAME, file.layer, numbers, buffers, values)
    return None
