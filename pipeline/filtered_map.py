"""Filters a change map by a quantile (docs/method.md, section 4; AnomalyCD, ISPRS 2026)."""

from dataclasses import dataclass

import numpy as np

from rasters.quantiles import valid_quantile
from rasters.raster import Raster
from utils import Window


@dataclass(frozen=True)
class FilteredMap:
    """A change map whose values below a threshold are read as 0; NaN stays NaN. Implements rasters.raster.Raster."""

    changes: Raster
    threshold: np.floating

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.changes.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the filtered values of a window, (h, w) float32."""
        values = self.changes.read(window)
        return np.where(values < self.threshold, np.float32(0), values)


def filter_change_map(changes: Raster, quantile: float) -> FilteredMap:
    """Set values below the map's `quantile` (of all its pixels, linear interpolation) to 0.

    `changes`: the change map of a whole event from stage 1, float32; the quantile ignores NaN.
    """
    return FilteredMap(changes, valid_quantile(changes, quantile))
