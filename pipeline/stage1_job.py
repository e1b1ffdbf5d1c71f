"""Stage 1 of an event: from its reference and monitor image to its continuous change map."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import config
from eval_metrics import binarize_by_quantile
from img_io import event_shape, open_event
from pipeline.stage_job import PreparedJob, StageJob, StagePlan
from pipeline.windows import WindowComputer
from rasters.maps import is_current, map_tags, open_map, write_preview, write_raster
from rasters.provenance import file_identities
from rasters.raster import Raster
from sam.weights import SamIdentity
from utils import Window, tile

if TYPE_CHECKING:
    from pipeline.feature_cache import FeatureCache
    from sam.engine import SamEngine


@dataclass(frozen=True)
class Stage1Plan(StagePlan):
    """Stage 1 of an event, before any of its files is opened."""

    patch_size: int  # side of a window in pixels

    def tile_event(self) -> list[Window]:
        """The stage's windows, in order. Raises EventError where the reference image cannot be opened."""
        return tile(*event_shape(self.event), self.patch_size)

    def open(self, sam: SamIdentity) -> "Stage1Job":
        """Open all images. Raises EventError where they do not go together."""
        images = open_event(self.event, self.options)
        parameters = (
            sam.provenance
            | images.parameters
            | {
                "images": file_identities([self.event.reference, self.event.monitor]),
                "patch_size": self.patch_size,
                "sam_params": config.STAGE1_SAM_PARAMS,
                "min_mask_pixels": config.STAGE1_MIN_MASK_PIXELS,
                "max_region_fraction": config.MAX_REGION_FRACTION,
            }
        )
        return Stage1Job(self.event, self.folder, images, parameters, sam.checkpoint)


@dataclass(frozen=True)
class Stage1Job(StageJob):
    """Stage 1 of an event, opened and checked."""

    MAP_NAME: ClassVar[str] = config.CHANGE_MAP_NAME
    SKIP_REASON: ClassVar[str] = "its change map exists"

    def tile_event(self) -> list[Window]:
        """Square windows, but for those larger than the image."""
        return tile(*self.images.shape, self.parameters["patch_size"])

    def is_current(self) -> bool:
        """Whether the change map is there, whole, and made with the same parameters from the same images."""
        return is_current(self.map_path, self.images.shape, self.parameters)

    def restore_side_files(self) -> None:
        """Make the preview again, where it is missing."""
        if not (self.folder / config.CHANGE_PREVIEW_NAME).exists():
            write_changed(self.folder, open_map(self.map_path))

    def prepare(self, scratch: Path) -> "PreparedStage1":
        """Nothing goes before the first window."""
        return PreparedStage1(self)


@dataclass(frozen=True)
class PreparedStage1(PreparedJob):
    """Stage 1 of an event, ready for its windows."""

    job: Stage1Job

    def work(self, engine: "SamEngine", cache: "FeatureCache | None") -> WindowComputer:
        """How the windows are computed. `cache`: keeps the features of both images for stage 2."""
        from pipeline.stage1_windows import (
            Stage1Windows,  # here: torch takes seconds to load, and nothing else needs it
        )

        return Stage1Windows(engine, self.job.images, cache)

    def assemble(self, scores: Raster) -> None:
        """Write the preview and the change map."""
        job = self.job
        write_changed(job.folder, scores)
        tags = map_tags(job.parameters, job.checkpoint)
        write_raster(job.map_path, scores, job.images.georeference, tags, "change score, 0 to 1")


def write_changed(folder: Path, changes: Raster) -> None:
    """Write the preview: the upper part of the change map."""
    binary = binarize_by_quantile(changes, config.STAGE1_CHANGE_QUANTILE)
    write_preview(folder / config.CHANGE_PREVIEW_NAME, binary)
