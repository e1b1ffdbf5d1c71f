"""Keeps the similarities of a window's regions as tables, and paints them as an explanation map (docs/data.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evaluation.explanations import NOT_COMPARED
from pipeline.window_store import WindowStore
from rasters.raster import Raster
from sam.run_lengths import RunLengths
from utils import Window

if TYPE_CHECKING:
    from stage2_analysis import Similarities


def region_table(values: np.ndarray, similarities: "Similarities", dates: Sequence[int], number: int) -> np.ndarray:
    """Return the table of a window's N regions, (N, number + 2) float32, sorted by the first column.

    Columns: the region's value in the filtered change map, its similarity with each of the `number` historical dates,
    its usual score; NOT_COMPARED where there is none. `values`: (N,) float32. `dates`: those that were compared.
    """
    table = np.full((len(values), number + 2), np.nan, np.float32)
    table[:, 0] = values
    table[:, 1 + np.asarray(dates)] = similarities.with_monitor
    table[:, -1] = similarities.usual_scores
    return np.nan_to_num(table, copy=False, nan=NOT_COMPARED)


def empty_table(number: int) -> np.ndarray:
    """Return the table of a window without regions, with `number` historical dates."""
    return np.empty((0, number + 2), np.float32)


@dataclass(frozen=True)
class StoredExplanation:
    """The explanation map of stored windows. Implements evaluation.explanations.ExplanationRaster."""

    store: WindowStore
    filtered: Raster  # the filtered change map, NaN where there is no data
    dates: Sequence[str]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.store.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w, dates + 1) float32; NaN where there is no data."""
        filtered = self.filtered.read(window)
        values = np.zeros((*filtered.shape, len(self.dates) + 1), np.float32)
        for whole, part in self.store.owners(window):
            owned = part._replace(x=part.x - window.x, y=part.y - window.y).slices
            table, runs = self.store.read_table(whole), RunLengths.of(np.nan_to_num(filtered[owned]))
            region, in_region = runs.find(table[:, 0])
            run_values = np.zeros((len(region), values.shape[2]), np.float32)
            run_values[in_region] = table[region[in_region], 1:]
            values[owned] = runs.paint(run_values)
        values[np.isnan(filtered)] = np.nan
        return values
