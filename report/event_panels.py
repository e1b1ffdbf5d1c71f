"""Reads the content of an event's figure, at the size of its panels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import config
from eval_metrics import Scores
from evaluation.event_maps import EvalSettings, EventMaps, open_event_maps, recorded_options
from img_io import EventImages, open_event
from rasters.maps import open_stage_map, read_parameters
from rasters.place import pixel_metres
from rasters.raster import Raster
from rasters.resize import resize_nearest
from report.pictures import ShrunkImage, fitted_shape, shrink_image
from utils import Event, EventError

PANEL_SIDE = 640  # pixels, at most: more than 400 dots per inch with five panels per row


@dataclass(frozen=True)
class EventPanels:
    """The content of an event's figure. All arrays are (h, w), at most PANEL_SIDE pixels per side; NaN is no data."""

    event: Event
    shape: tuple[int, int]  # of the images, before shrinking
    pixel_metres: float | None  # on the ground; None if unknown
    historical: list[ShrunkImage]  # oldest first, the reference image last
    monitor: ShrunkImage
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
    """Read an event's images and maps.

    Raises EventError if one is missing, damaged, or of another size, or if several files may be one of the maps.
    """
    maps = open_event_maps(event, result_root, EvalSettings())
    changes = open_stage_map(stage1_root / event.name / config.CHANGE_MAP_NAME, stage=1)
    made_with = read_parameters(maps.anomalies.path) or {}
    images = open_event(event, recorded_options(made_with))
    for shape, path in ((images.shape, event.reference), (changes.shape, changes.path)):
        if shape != maps.anomalies.shape:
            raise EventError(f"{path} and {maps.anomalies.path}: sizes differ; run both stages on these images again")
    return _panels(event, images, maps, changes)


def _panels(event: Event, images: EventImages, maps: EventMaps, changes: Raster) -> EventPanels:
    shape = fitted_shape(images.shape, PANEL_SIDE)
    return EventPanels(
        event=event,
        shape=images.shape,
        pixel_metres=pixel_metres(images.georeference, images.shape),
        historical=[shrink_image(image, shape) for image in images.historical],
        monitor=shrink_image(images.monitor, shape),
        changes=resize_nearest(changes, shape),
        filtered=resize_nearest(maps.filtered, shape),
        anomalies=resize_nearest(maps.anomalies, shape),
        changed=resize_nearest(maps.changed, shape),
        anomalous=resize_nearest(maps.anomalous, shape),
        label=resize_nearest(maps.label, shape) if maps.label else None,
        change_threshold=float(maps.changed.threshold),
        settings=maps.settings,
        scores=maps.scores() if maps.label else None,
    )
