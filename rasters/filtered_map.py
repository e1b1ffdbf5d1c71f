"""Filters a change map by a quantile (docs/method.md, section 4; AnomalyCD, ISPRS 2026)."""

from dataclasses import dataclass

import numpy as np

from rasters.quantiles import valid_quantile
from rasters.raster import Raster
from utils import Window


@dataclass(frozen=True)
class FilteredMap:
    """A change map in which everything below a threshold reads as 0, and NaN as NaN; see rasters.raster.Raster."""

    changes: Raster
    threshold: np.floating

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.changes.shape

    def read(self, window: Window) -> np.ndarray:
        """(h, w) float32."""
        values = self.changes.read(window)
        return np.where(values < self.threshold, np.float32(0), values)


def filter_change_map(changes: Raster, quantile: float) -> FilteredMap:
    """Set everything below the map's `quantile` (of all its pixels, linear interpolation) to 0.

    `changes`: a whole event's change map, float32, as stage 1 wrote it; pixels that are NaN do not count.
    """
    return FilteredMap(changes, valid_quantile(changes, quantile))
