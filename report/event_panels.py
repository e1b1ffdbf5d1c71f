"""Reads what the figure of an event shows, at the size of its panels."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import config
from eval_metrics import Scores
from evaluation.event_maps import EvalSettings, EventMaps, open_event_maps
from img_io import EventImages, ImageOptions, Pixels, open_event
from rasters.maps import open_map, read_parameters
from rasters.place import pixel_metres
from report.thumbnails import shrink_image, shrink_raster
from utils import Event, EventError

PANEL_SIDE = 640  # pixels at most: 400 dots an inch and more where five panels share the width


@dataclass(frozen=True)
class EventPanels:
    """The content of an event's figure. All arrays are (h, w), at most PANEL_SIDE a side; NaN is no data."""

    event: Event
    shape: tuple[int, int]  # of the images, before they were brought to the panels' size
    pixel_metres: float | None  # on the ground; None where the images do not say
    historical: list[Pixels]  # oldest first, the reference image last
    monitor: Pixels
    changes: np.ndarray  # float32
    filtered: np.ndarray  # float32
    anomalies: np.ndarray  # float32
    changed: np.ndarray  # bool, stage 1's binary map
    anomalous: np.ndarray  # bool, stage 2's binary map
    label: np.ndarray | None  # integer
    change_threshold: float
    settings: EvalSettings
    scores: tuple[Scores, Scores] | None  # of stage 1 and stage 2; None without a label


def read_panels(event: Event, stage1_root: Path, result_root: Path) -> EventPanels:
    """Read an event's images and maps. Raises EventError where one is missing, damaged, or of another size."""
    maps = open_event_maps(event, result_root, EvalSettings())
    changes = open_map(stage1_root / event.name / config.CHANGE_MAP_NAME)
    made_with = read_parameters(result_root / event.name / config.ANOMALY_MAP_NAME) or {}
    images = open_event(event, options_of(made_with))
    for shape, path in ((images.shape, event.reference), (changes.shape, changes.path)):
        if shape != maps.anomalies.shape:
            raise EventError(f"{path} and {maps.anomalies.path}: sizes differ; run both stages on these images again")
    return _panels(event, images, maps, shrink_raster(changes, PANEL_SIDE))


def _panels(event: Event, images: EventImages, maps: EventMaps, changes: np.ndarray) -> EventPanels:
    return EventPanels(
        event=event,
        shape=images.shape,
        pixel_metres=pixel_metres(images.georeference, images.shape),
        historical=[shrink_image(image, PANEL_SIDE) for image in images.historical],
        monitor=shrink_image(images.monitor, PANEL_SIDE),
        changes=changes,
        filtered=shrink_raster(maps.filtered, PANEL_SIDE),
        anomalies=shrink_raster(maps.anomalies, PANEL_SIDE),
        changed=shrink_raster(maps.changed, PANEL_SIDE),
        anomalous=shrink_raster(maps.anomalous, PANEL_SIDE),
        label=shrink_raster(maps.label, PANEL_SIDE) if maps.label else None,
        change_threshold=float(maps.changed.threshold),
        settings=maps.settings,
        scores=maps.scores() if maps.label else None,
    )


def options_of(parameters: dict[str, Any]) -> ImageOptions:
    """How the images were read that a map was made from. `parameters`: those in the map's tag, possibly none."""
    bands, stretch = parameters.get("bands"), parameters.get("stretch")
    return ImageOptions(
        stretch=stretch[0] if stretch else config.STRETCH,
        bands=tuple(bands) if bands else None,
        align_shift=parameters.get("align_shift", 0.0),
    )


def date_text(path: Path) -> str:
    """The date in an image's name, as in `2019-06-20`; else what follows `normal_` or `anomaly_`."""
    date = re.search(r"(?<!\d)(\d{4})(\d{2})(\d{2})(?!\d)", path.stem)
    return "-".join(date.groups()) if date else re.sub(r"^(normal|anomaly)_", "", path.stem, flags=re.IGNORECASE)
