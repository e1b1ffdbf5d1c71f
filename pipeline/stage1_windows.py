"""Computes the windows of an event's change map."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import config
from img_io import EventImages, Pixels, read_window, valid_in_all
from pipeline.feature_cache import FeatureCache
from sam.engine import SamEngine, ScaledImage
from stage1_analysis import change_map
from utils import Window


class ReadPair(NamedTuple):
    """A window of reference and monitor image."""

    pixels: list[Pixels]
    valid: np.ndarray | None  # (H, W) bool, where both hold data; None: everywhere
    scaled: list[ScaledImage]  # for the encoder; none where no pixel can be scored


class Stage1Windows:
    """Computes windows of a change map: see pipeline.WindowComputer."""

    def __init__(self, engine: SamEngine, images: EventImages, cache: FeatureCache | None) -> None:
        self._engine = engine
        self._pair = (images.reference, images.monitor)
        self._cache = cache

    def read(self, window: Window) -> ReadPair:
        """Both images' pixels, as they are and scaled for the encoder."""
        pixels = [read_window(image, window) for image in self._pair]
        valid = valid_in_all(pixels)
        skipped = valid is not None and not valid.any()
        return ReadPair(pixels, valid, [] if skipped else [self._engine.scale(of_image.rgb) for of_image in pixels])

    def compute(self, window: Window, item: ReadPair) -> Callable[[], np.ndarray]:
        """Encode both images and find their masks, which may still be cleaned on other threads."""
        if not item.scaled:
            return lambda: np.full((window.height, window.width), np.nan, np.float32)
        reference, monitor = self._engine.encode(item.scaled)
        if self._cache is not None:
            for image, features in zip(self._pair, (reference, monitor), strict=True):
                self._cache.keep(image.path, window, features)
        reference_masks, monitor_masks = (
            self._engine.generate_masks(pixels.rgb, features, config.STAGE1_SAM_PARAMS)
            for pixels, features in zip(item.pixels, (reference, monitor), strict=True)
        )
        return lambda: change_map(
            reference,
            monitor,
            reference_masks.collect(),
            monitor_masks.collect(),
            config.STAGE1_MIN_MASK_PIXELS,
            config.MAX_REGION_FRACTION,
            item.valid,
        )
