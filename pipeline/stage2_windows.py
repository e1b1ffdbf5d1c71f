"""Computes the windows of an event's anomaly map."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import config
from img_io import EventImages, read_window
from pipeline.feature_cache import FeatureCache
from rasters.filtered_map import FilteredMap
from sam.engine import SamEngine, ScaledImage
from stage2_analysis import anomaly_map
from utils import Window


class ReadDates(NamedTuple):
    """A window of the change map and of the dates that are not encoded yet."""

    changes: np.ndarray  # (h, w) float32, filtered
    scaled: list[list[ScaledImage]]  # for the encoder, in the groups it takes at once; none where no pixel holds data
    has_kept: bool  # the features of reference and monitor image are in the cache


class Stage2Windows:
    """Computes windows of an anomaly map: see pipeline.WindowComputer.

    Reference and monitor image are encoded together, as stage 1 does it: with what stage 1 kept or without, batches,
    and with them the last bits, are the same.
    """

    def __init__(
        self, engine: SamEngine, images: EventImages, filtered: FilteredMap, cache: FeatureCache | None
    ) -> None:
        self._engine = engine
        self._older, self._pair = images.historical[:-1], (images.reference, images.monitor)
        self._filtered = filtered
        self._cache = cache

    def read(self, window: Window) -> ReadDates:
        """The filtered change map, and all dates but those that the cache has, scaled for the encoder."""
        changes = self._filtered.read(window)
        if np.isnan(changes).all():
            return ReadDates(changes, [], False)
        has_kept = self._cache is not None and all(self._cache.has(image.path, window) for image in self._pair)
        groups = [self._older] if has_kept else [self._older, self._pair]
        scaled = [[self._engine.scale(read_window(image, window).rgb) for image in dates] for dates in groups if dates]
        return ReadDates(changes, scaled, has_kept)

    def compute(self, window: Window, item: ReadDates) -> Callable[[], np.ndarray]:
        """Encode the dates."""
        features = [of_image for group in item.scaled for of_image in self._engine.encode(group)]
        if item.has_kept and self._cache is not None:
            features += [self._cache.get(image.path, window, self._engine.device) for image in self._pair]
        if not features:
            return lambda: item.changes
        return lambda: anomaly_map(
            item.changes, features[:-1], features[-1], config.STAGE2_MIN_MASK_PIXELS, config.MAX_REGION_FRACTION
        )
