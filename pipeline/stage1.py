"""Stage 1 of an event: reference and monitor image → change map (docs/method.md, section 3)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

import config
from cli.provenance import file_identities
from img_io import open_event, read_window, valid_in_all
from pipeline.side_outputs import ChangePreview, write_map_style
from pipeline.stage import Stage, StageRequest, StageSettings
from pipeline.window_store import ComputedWindow, WindowStore
from rasters.cog import write_raster
from rasters.maps import MapState, find_map, map_state, map_tags
from rasters.raster import Raster
from sam.weights import SamIdentity
from utils import Window, from_config, tile

if TYPE_CHECKING:
    from pipeline.feature_cache import FeatureCache
    from sam.engine import SamEngine, ScaledImage
    from sam.features import WindowFeatures
    from sam.mask_generator import PendingMasks


@dataclass(frozen=True)
class Stage1Settings(StageSettings):
    """Settings that affect a change map; recorded in the map under these names."""

    patch_size: int  # side of a window, pixels
    sam_params: dict[str, Any] = from_config("STAGE1_SAM_PARAMS")
    min_mask_pixels: int = from_config("STAGE1_MIN_MASK_PIXELS")
    max_region_fraction: float = from_config("MAX_REGION_FRACTION")

    def tile(self, shape: tuple[int, int]) -> list[Window]:
        """Return the windows of an image of this height and width (docs/method.md, section 2)."""
        return tile(*shape, self.patch_size, self.overlap)


@dataclass(frozen=True)
class Stage1Request(StageRequest):
    """Stage 1 of an event, before its files are opened."""

    settings: Stage1Settings

    NAME: ClassVar[str] = "stage 1"

    def images_per_window(self) -> tuple[int, int]:
        """Return how many images of a window are encoded, and of how many masks are generated."""
        return 2, 2

    def open(self, sam: SamIdentity) -> "Stage1":
        """Open all images. Raises EventError if an image is unusable or the images do not match."""
        images = open_event(self.event, self.options)
        identities = {"images": file_identities([self.event.reference, self.event.monitor])}
        parameters = sam.provenance | images.parameters | identities | self.settings.recorded()
        return Stage1(self, images, parameters, sam.checkpoint)


class ImagePair(NamedTuple):
    """A window of the reference and the monitor image."""

    scaled: list["ScaledImage"]  # for the encoder; empty if no pixel can be scored
    valid: np.ndarray | None  # (H, W) bool, True where both hold data; None: everywhere
    pixels: list[np.ndarray] | list[None]  # (H, W, 3) uint8 RGB each; None if mask generation needs no crops of them


class EncodedPair(NamedTuple):
    """Features and masks of a window of the reference and the monitor image."""

    features: list["WindowFeatures"]  # empty if no pixel can be scored
    masks: list["PendingMasks"]  # host threads may still be cleaning them
    valid: np.ndarray | None  # as in ImagePair


@dataclass(frozen=True)
class Stage1(Stage):
    """Stage 1 of an event, opened and checked."""

    request: Stage1Request

    MAP_NAME: ClassVar[str] = config.CHANGE_MAP_NAME
    SKIP_REASON: ClassVar[str] = "its change map exists"
    RECOMPUTE_FLAGS: ClassVar[str] = "with --no-skip-existing (run.py: --no-skip-existing-stage1)"

    @property
    def preview(self) -> ChangePreview:
        """The map's preview."""
        return ChangePreview(self.folder / config.CHANGE_PREVIEW_NAME, config.STAGE1_CHANGE_QUANTILE)

    def state(self) -> MapState:
        """Return the state of the change map. Raises EventError if several files match its name."""
        return map_state(find_map(self.map_path), self.images.shape, self.parameters)

    def read(self, window: Window, engine: "SamEngine", cache: "FeatureCache | None") -> ImagePair:
        """Read both images and scale them for the encoder."""
        pixels = [read_window(image, window) for image in (self.images.reference, self.images.monitor)]
        valid = valid_in_all(pixels)
        if valid is not None and not valid.any():
            return ImagePair([], valid, [])
        scaled = [engine.scale(image.rgb) for image in pixels]
        has_crops = self.request.settings.sam_params.get("crop_n_layers", 0) > 0
        return ImagePair(scaled, valid, [image.rgb for image in pixels] if has_crops else [None, None])

    def encode(
        self, window: Window, inputs: ImagePair, engine: "SamEngine", cache: "FeatureCache | None"
    ) -> EncodedPair:
        """Encode both images and generate their masks."""
        from sam.mask_generator import MaskParameters  # loads torch

        if not inputs.scaled:
            return EncodedPair([], [], inputs.valid)
        features = engine.encode(inputs.scaled)
        if cache is not None:
            for image, encoded in zip((self.images.reference, self.images.monitor), features, strict=True):
                cache.keep(image.path, window, encoded)
        parameters = MaskParameters.of(self.request.settings.sam_params)
        masks = [
            engine.generator.generate(pixels, encoded, parameters)
            for pixels, encoded in zip(inputs.pixels, features, strict=True)
        ]
        return EncodedPair(features, masks, inputs.valid)

    def score(self, window: Window, encoded: EncodedPair) -> ComputedWindow:
        """Return the change scores of a window."""
        from stage1_analysis import change_map  # loads torch, which is not needed to write maps

        if not encoded.features:
            return ComputedWindow(np.full((window.height, window.width), np.nan, np.float32))
        settings = self.request.settings
        reference, monitor = encoded.features
        reference_masks, monitor_masks = (masks.collect() for masks in encoded.masks)
        return ComputedWindow(
            change_map(
                reference,
                monitor,
                reference_masks,
                monitor_masks,
                settings.min_mask_pixels,
                settings.max_region_fraction,
                encoded.valid,
                settings.tolerance,
            )
        )

    def write_outputs(self, store: WindowStore) -> None:
        """Write the preview and the change map."""
        self.write_side_outputs(store)
        write_map_style(self.map_path)
        tags = map_tags(self.parameters, self.checkpoint)
        write_raster(self.map_path, store, self.images.georeference, tags, ["change score, 0 to 1"])

    def has_side_outputs(self) -> bool:
        """Return whether the preview exists and was made with the current quantile."""
        return self.preview.is_current()

    def write_side_outputs(self, scores: Raster) -> None:
        """Write the preview."""
        self.preview.write(scores)
