"""Stage 1 of an event: reference and monitor image → change map (docs/method.md, section 3)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

import config
from eval_metrics import binarize_by_quantile
from img_io import event_shape, open_event, read_window, valid_in_all
from pipeline.stage import Stage, StageRequest, StageSettings, settings_record
from pipeline.window_store import ComputedWindow, WindowStore
from rasters.maps import MapState, find_map, map_state, map_tags, write_raster
from rasters.png import read_preview_text, write_preview
from rasters.provenance import file_identities
from rasters.raster import Raster
from sam.weights import SamIdentity
from utils import Window, tile

if TYPE_CHECKING:
    from pipeline.feature_cache import FeatureCache
    from sam.engine import SamEngine, ScaledImage


@dataclass(frozen=True)
class Stage1Settings(StageSettings):
    """Settings that affect a change map; recorded in the map under these names."""

    patch_size: int  # side of a window, pixels
    sam_params: dict[str, Any] = field(default_factory=lambda: config.STAGE1_SAM_PARAMS)
    min_mask_pixels: int = field(default_factory=lambda: config.STAGE1_MIN_MASK_PIXELS)
    max_region_fraction: float = field(default_factory=lambda: config.MAX_REGION_FRACTION)

    def tile(self, shape: tuple[int, int]) -> list[Window]:
        """Return the windows of an image of this height and width (docs/method.md, section 2)."""
        return tile(*shape, self.patch_size, self.overlap)


@dataclass(frozen=True)
class Stage1Request(StageRequest):
    """Stage 1 of an event, before its files are opened."""

    settings: Stage1Settings

    def tile_event(self) -> list[Window]:
        """Return the stage's windows, in order. Raises EventError if the reference image cannot be opened."""
        return self.settings.tile(event_shape(self.event))

    def open(self, sam: SamIdentity) -> "Stage1":
        """Open all images. Raises EventError if an image is unusable or the images do not match."""
        images = open_event(self.event, self.options)
        identities = {"images": file_identities([self.event.reference, self.event.monitor])}
        return Stage1(
            self.event,
            self.folder,
            images,
            sam.provenance | images.parameters | identities | self.settings.recorded(),
            {"quantile": config.STAGE1_CHANGE_QUANTILE},
            sam.checkpoint,
            self.settings,
        )


class ImagePair(NamedTuple):
    """A window of the reference and the monitor image."""

    scaled: list["ScaledImage"]  # for the encoder; empty if no pixel can be scored
    valid: np.ndarray | None  # (H, W) bool, True where both hold data; None: everywhere
    pixels: list[np.ndarray] | list[None]  # (H, W, 3) uint8 RGB each; None if mask generation needs no crops of them


@dataclass(frozen=True)
class Stage1(Stage):
    """Stage 1 of an event, opened and checked."""

    settings: Stage1Settings

    MAP_NAME: ClassVar[str] = config.CHANGE_MAP_NAME
    SKIP_REASON: ClassVar[str] = "its change map exists"
    RECOMPUTE_FLAGS: ClassVar[str] = "with --no-skip-existing (run.py: --no-skip-existing-stage1)"

    @property
    def preview_path(self) -> Path:
        """Path of the preview, PNG."""
        return self.folder / config.CHANGE_PREVIEW_NAME

    def state(self) -> MapState:
        """Return the state of the change map. Raises EventError if several files match its name."""
        return map_state(find_map(self.map_path), self.images.shape, self.parameters)

    def read(self, window: Window, engine: "SamEngine", cache: "FeatureCache | None") -> ImagePair:
        """Read both images and scale them for the encoder."""
        pixels = [read_window(image, window) for image in (self.images.reference, self.images.monitor)]
        valid = valid_in_all(pixels)
        if valid is not None and not valid.any():
            return ImagePair([], valid, [])
        scaled = [engine.scale(of_image.rgb) for of_image in pixels]
        has_crops = self.settings.sam_params.get("crop_n_layers", 0) > 0
        return ImagePair(scaled, valid, [of_image.rgb for of_image in pixels] if has_crops else [None, None])

    def compute(
        self, window: Window, item: ImagePair, engine: "SamEngine", cache: "FeatureCache | None"
    ) -> Callable[[], ComputedWindow]:
        """Encode both images and generate their masks; on return, host threads may still be cleaning these."""
        from stage1_analysis import change_map  # loads torch, which is not needed to write maps

        if not item.scaled:
            return lambda: ComputedWindow(np.full((window.height, window.width), np.nan, np.float32))
        reference, monitor = engine.encode(item.scaled)
        if cache is not None:
            cache.keep(self.images.reference.path, window, reference)
            cache.keep(self.images.monitor.path, window, monitor)
        reference_masks, monitor_masks = (
            engine.generate_masks(pixels, features, self.settings.sam_params)
            for pixels, features in zip(item.pixels, (reference, monitor), strict=True)
        )
        valid = item.valid  # the function returned would keep all of `item`
        return lambda: ComputedWindow(
            change_map(
                reference,
                monitor,
                reference_masks.collect(),
                monitor_masks.collect(),
                self.settings.min_mask_pixels,
                self.settings.max_region_fraction,
                valid,
            )
        )

    def write_outputs(self, store: WindowStore) -> None:
        """Write the preview and the change map."""
        self.write_side_files(store)
        tags = map_tags(self.parameters, self.checkpoint)
        write_raster(self.map_path, store, self.images.georeference, tags, ["change score, 0 to 1"])

    def has_side_files(self) -> bool:
        """Return whether the preview exists and was made with the current quantile."""
        return read_preview_text(self.preview_path) == settings_record(self.side_settings)

    def write_side_files(self, scores: Raster) -> None:
        """Write the preview: the change map, binarized at a quantile."""
        write_preview(
            self.preview_path, binarize_by_quantile(scores, **self.side_settings), settings_record(self.side_settings)
        )
