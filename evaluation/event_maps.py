"""Opens the maps and the label of an event for the evaluation, and scores both stages."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import config
from eval_metrics import (
    BinaryMap,
    ChangedPixels,
    Scores,
    ThresholdCurve,
    binarize_anomaly_map,
    binarize_by_quantile,
    score_binary_map,
    threshold_curve,
)
from img_io import ImageOptions, Label, open_label
from rasters.maps import ScoreMap, open_score_map, open_stage_map, read_parameters
from rasters.place import find_place
from utils import Event, EventError, from_config

# Denser at low scores, where most scores and the published threshold lie.
CURVE_THRESHOLDS = tuple(np.concatenate([np.arange(50) * 0.004, 0.2 + np.arange(51) * 0.016]).round(3).tolist())


def curve_thresholds(stage2_threshold: float) -> list[float]:
    """Return the thresholds of the precision-recall curves, ascending: CURVE_THRESHOLDS and the evaluation's own."""
    return sorted({*CURVE_THRESHOLDS, stage2_threshold})


@dataclass(frozen=True)
class EvalSettings:
    """Settings for binary maps and scores; the defaults are the values of config.py."""

    quantile_threshold: float = from_config("EVAL_QUANTILE_THRESH")
    stage2_threshold: float = from_config("EVAL_STAGE2_FIXED_THRESH")
    area_ratio: float = from_config("EVAL_AREA_RATIO")
    background_weight: float = from_config("EVAL_BACKGROUND_WEIGHT")
    normalize_anomaly_map: bool = False
    closing_size: int = from_config("EVAL_CLOSING_SIZE")
    closing_radius: int = from_config("EVAL_CLOSING_RADIUS")

    @property
    def cleaning(self) -> dict[str, Any]:
        """The keyword arguments that `binarize_anomaly_map` and `threshold_curve` share."""
        return {name: getattr(self, name) for name in ("area_ratio", "closing_size", "closing_radius")}


@dataclass(frozen=True)
class EventMaps:
    """Stage 2's maps of an event and its label, all of the same size."""

    filtered: ScoreMap  # of stage 1; float32, NaN where there is no data
    anomalies: ScoreMap  # float32, NaN where there is no data
    label: Label | None  # integer, values above 1 are anomalies; None if the event has no label
    settings: EvalSettings

    @cached_property
    def changed(self) -> ChangedPixels:
        """Stage 1's binary map."""
        return binarize_by_quantile(self.filtered, self.settings.quantile_threshold)

    @cached_property
    def anomalous(self) -> BinaryMap:
        """Stage 2's binary map."""
        return binarize_anomaly_map(
            self.anomalies,
            self.settings.stage2_threshold,
            **self.settings.cleaning,
            normalize=self.settings.normalize_anomaly_map,
        )

    @property
    def pixel_area(self) -> float | None:
        """The average area of a pixel on the ground in square metres; None if it is unknown."""
        return find_place(self.anomalies.georeference, self.anomalies.shape).pixel_area

    @cached_property
    def curve(self) -> ThresholdCurve:
        """Stage 2's binary map at `curve_thresholds`."""
        return threshold_curve(
            self.anomalies,
            self.label,
            curve_thresholds(self.settings.stage2_threshold),
            **self.settings.cleaning,
            normalize=self.settings.normalize_anomaly_map,
        )

    def scores(self) -> tuple[Scores, Scores]:
        """Return the scores of stage 1 and stage 2; needs a label."""
        assert self.label is not None
        weight = self.settings.background_weight
        return (
            score_binary_map(self.changed, self.filtered, self.label, weight),
            score_binary_map(self.anomalous, self.anomalies, self.label, weight),
        )


def recorded_options(parameters: dict[str, Any]) -> ImageOptions:
    """Return the options with which the images of a map were read.

    `parameters`: those that the map records; may be empty.
    """
    bands, stretch = parameters.get("bands"), parameters.get("stretch")
    return ImageOptions(
        stretch=stretch[0] if stretch else config.STRETCH,
        bands=tuple(bands) if bands else None,
        align_shift=parameters.get("align_shift", 0.0),
    )


def open_event_label(event: Event, parameters: dict[str, Any]) -> Label | None:
    """Open the label on the grid of the maps, shifted like the monitor image; None if the event has no label.

    `parameters`: those that the maps record. Raises EventError if the label cannot be used.
    """
    if event.label is None:
        return None
    return open_label(event, parameters.get("shifts", {}).get(event.monitor.name))


def open_event_maps(event: Event, result_root: Path, settings: EvalSettings, map_name: str | None = None) -> EventMaps:
    """Open stage 2's maps of an event, and its label, if it has one, on their grid.

    `map_name`: file name of the map of another method, which then takes the place of both maps. Raises EventError if a
    file is missing or damaged, if several files may be one of the maps, or if sizes differ.
    """
    folder = result_root / event.name
    if map_name is None:
        names = (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME)
        filtered, anomalies = (open_stage_map(folder / name, stage=2) for name in names)
    else:
        filtered = anomalies = open_score_map(folder / map_name)
    label = open_event_label(event, read_parameters(anomalies.path) or {})
    if not filtered.shape == anomalies.shape == (label or anomalies).shape:
        named = f"{label.path} and the" if label else "The"
        raise EventError(f"{named} maps in {folder}: sizes differ; run both stages on these images again")
    return EventMaps(filtered, anomalies, label, settings)
