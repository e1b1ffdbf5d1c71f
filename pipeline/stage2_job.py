"""Stage 2 of an event: from its change map and all historical images to its anomaly map."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import config
from eval_metrics import binarize_anomaly_map
from evaluation.polygons import find_regions, regions_are_whole, write_regions
from img_io import EventImages, event_shape, open_event, read_window, valid_in_all
from pipeline.stage_job import PreparedJob, StageJob, StagePlan
from pipeline.windows import WindowComputer
from rasters.filtered_map import FilteredMap, filter_change_map
from rasters.geotiff import Georeference, SingleBandTiff
from rasters.maps import is_current, map_tags, open_map, read_parameters, write_preview, write_raster
from rasters.provenance import file_identities
from rasters.raster import Raster, RawRaster, strips
from sam.weights import SamIdentity
from utils import CATEGORIES, LOG, Event, EventError, Window, tile

CHANGES_NAME = "changes"  # a file beside the windows

if TYPE_CHECKING:
    from pipeline.feature_cache import FeatureCache
    from sam.engine import SamEngine


def event_windows(shape: tuple[int, int]) -> list[Window]:
    """Stage 2's windows of an image of this height and width (docs/method.md, section 2)."""
    small = min(shape) < config.STAGE2_PATCH_SIZE
    return tile(*shape, config.STAGE2_SMALL_PATCH_SIZE if small else config.STAGE2_PATCH_SIZE)


@dataclass(frozen=True)
class Stage2Plan(StagePlan):
    """Stage 2 of an event, before any of its files is opened."""

    stage1_path: Path  # the event's change map

    def tile_event(self) -> list[Window]:
        """The stage's windows, in order. Raises EventError where the reference image cannot be opened."""
        return event_windows(event_shape(self.event))

    def open(self, sam: SamIdentity) -> "Stage2Job":
        """Open all images and the change map. Raises EventError where they do not go together."""
        images = open_event(self.event, self.options)
        made_with = sam.provenance | images.parameters
        changes = open_change_map(self.stage1_path, self.event, images.shape, made_with)
        parameters = made_with | {
            "images": file_identities([*self.event.historical, self.event.monitor]),
            "stage1": read_parameters(self.stage1_path),
            "change_map_quantile": config.STAGE2_CHANGE_MAP_QUANTILE,
            "patch_sizes": [config.STAGE2_SMALL_PATCH_SIZE, config.STAGE2_PATCH_SIZE],
            "min_region_pixels": config.STAGE2_MIN_MASK_PIXELS,
            "max_region_fraction": config.MAX_REGION_FRACTION,
        }
        return Stage2Job(self.event, self.folder, images, parameters, sam.checkpoint, changes)


def open_change_map(path: Path, event: Event, shape: tuple[int, int], made_with: dict[str, Any]) -> SingleBandTiff:
    """Stage 1's change map of an event. Raises EventError where it is missing or belongs to other images.

    `made_with`: what stage 2 runs with; where stage 1 ran with something else, a warning says so.
    """
    if not path.exists():
        raise EventError(f"{path}: no stage 1 output for this event; run stage 1 first")
    changes = open_map(path)
    if changes.shape != shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (changes.shape, shape))
        raise EventError(f"{path} and {event.monitor}: sizes differ, {sizes}; run stage 1 again")
    recorded = read_parameters(path)
    other = sorted(key for key, value in made_with.items() if recorded is not None and recorded.get(key) != value)
    if other:
        LOG.warning("%s: was made with another %s than stage 2 runs with", path, ", ".join(other))
    return changes


@dataclass(frozen=True)
class Stage2Job(StageJob):
    """Stage 2 of an event, opened and checked."""

    changes: SingleBandTiff  # stage 1's change map

    MAP_NAME: ClassVar[str] = config.ANOMALY_MAP_NAME
    SKIP_REASON: ClassVar[str] = "its anomaly map exists"

    def tile_event(self) -> list[Window]:
        """Square windows, smaller ones for a small image."""
        return event_windows(self.images.shape)

    def is_current(self) -> bool:
        """Whether both maps are there, whole, and made with the same parameters from the same images."""
        return all(
            is_current(self.folder / name, self.images.shape, self.parameters)
            for name in (config.FILTERED_MAP_NAME, self.MAP_NAME)
        )

    def restore_side_files(self) -> None:
        """Make the preview and the regions again, where they are missing."""
        preview, regions = self.folder / config.ANOMALY_PREVIEW_NAME, self.folder / config.REGIONS_NAME
        if not (preview.exists() and regions_are_whole(regions)):
            write_result(self.folder, self.event, open_map(self.folder / self.MAP_NAME), self.images.georeference)

    def prepare(self, scratch: Path) -> "PreparedStage2":
        """Find the threshold of the changes that count, among pixels that hold data in all dates."""
        changes = changes_with_data(self.changes, self.images, scratch / CHANGES_NAME)
        return PreparedStage2(self, filter_change_map(changes, config.STAGE2_CHANGE_MAP_QUANTILE))


def changes_with_data(changes: SingleBandTiff, images: EventImages, path: Path) -> Raster:
    """A change map that is NaN wherever a date holds no data; where any can lack some, in a file at `path`."""
    dates = [image for image in (*images.historical, images.monitor) if image.may_lack_data]
    if not dates:
        return changes
    combined = RawRaster(path, changes.shape)
    combined.create()
    for window in strips(changes.shape):
        values = changes.read(window)
        valid = valid_in_all(read_window(image, window) for image in dates)
        combined.write(window, values if valid is None else np.where(valid, values, np.float32(np.nan)))
    return combined


@dataclass(frozen=True)
class PreparedStage2(PreparedJob):
    """Stage 2 of an event, ready for its windows."""

    job: Stage2Job
    filtered: FilteredMap

    def work(self, engine: "SamEngine", cache: "FeatureCache | None") -> WindowComputer:
        """How the windows are computed. `cache`: what stage 1 encoded just now."""
        from pipeline.stage2_windows import (
            Stage2Windows,  # here: torch takes seconds to load, and nothing else needs it
        )

        return Stage2Windows(engine, self.job.images, self.filtered, cache)

    def assemble(self, scores: Raster) -> None:
        """Write the binary map, the filtered change map and the anomaly map."""
        job, georeference = self.job, self.job.images.georeference
        write_result(job.folder, job.event, scores, georeference)
        tags = map_tags(job.parameters, job.checkpoint)
        filtered_path = job.folder / config.FILTERED_MAP_NAME
        write_raster(filtered_path, self.filtered, georeference, tags, "change score, 0 to 1, filtered")
        write_raster(job.map_path, scores, georeference, tags, "anomaly score, 0 to 2")


def write_result(folder: Path, event: Event, anomalies: Raster, georeference: Georeference) -> None:
    """Write the binary map of an event: its preview, and its regions as polygons."""
    binary = binarize_anomaly_map(
        anomalies,
        config.EVAL_STAGE2_FIXED_THRESH,
        config.EVAL_AREA_RATIO,
        config.EVAL_CLOSING_SIZE,
        config.EVAL_CLOSING_RADIUS,
    )
    write_preview(folder / config.ANOMALY_PREVIEW_NAME, binary)
    name, _ = CATEGORIES[event.category]
    attributes = {"event": event.name, "category": f"{event.category} {name}"}
    write_regions(folder / config.REGIONS_NAME, find_regions(binary, anomalies, georeference), attributes)
