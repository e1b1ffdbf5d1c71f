"""Averages SAM features over regions of a window without upsampling them (docs/method.md, section 3).

The encoder sees a window as a grid of feature cells. Averaging a nearest-upsampled feature map over a region equals
averaging the cells, each weighted by how many of the region's pixels fall into it, so that all regions of a window
are one product: (regions x cells) @ (cells x C).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class WindowFeatures:
    """SAM's encoder output for one window, and which feature cell each of the window's pixels falls into.

    SAM scales a window to the encoder's input size by its longer side and pads the shorter one. `rows` and `columns`
    follow the window alone, so the cells of the padding belong to no pixel.
    """

    embedding: torch.Tensor  # (1, C, G, G) float32, on the engine's device, padding included
    input_size: tuple[int, int]  # height and width of the scaled window, before padding
    rows: np.ndarray  # (H,) intp: cell row of every pixel row
    columns: np.ndarray  # (W,) intp: cell column of every pixel column

    @classmethod
    def from_embedding(
        cls, embedding: torch.Tensor, window_size: tuple[int, int], input_size: tuple[int, int], encoder_size: int
    ) -> "WindowFeatures":
        """Locate the pixels of a window of `window_size` (H, W), scaled to `input_size` in an `encoder_size` square."""
        grid = embedding.shape[-1]
        rows, columns = (
            # Pixel p lies at p * scaled / length in the encoder's input, whose cells are encoder_size / grid wide.
            # Integers: where the window fills the input this is floor(p * G / length), free of rounding.
            np.arange(length, dtype=np.intp) * (scaled * grid) // (length * encoder_size)
            for length, scaled in zip(window_size, input_size, strict=True)
        )
        return cls(embedding, input_size, rows, columns)

    @property
    def window_size(self) -> tuple[int, int]:
        """Height and width of the window in pixels."""
        return len(self.rows), len(self.columns)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the feature cells that hold pixels."""
        return int(self.rows[-1]) + 1, int(self.columns[-1]) + 1

    def mask_counts(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        """How many pixels of each mask fall into each cell.

        `masks`: N arrays (H, W) of bool, which may overlap. Returns (N, cells) int64.
        """
        # Only cells that hold pixels: where a window has fewer pixels than cells, reduceat would repeat some.
        rows, row_starts = np.unique(self.rows, return_index=True)
        columns, column_starts = np.unique(self.columns, return_index=True)
        counts = np.zeros((len(masks), *self.grid_size), np.int64)
        for mask, count in zip(masks, counts, strict=True):
            by_row = np.add.reduceat(mask, row_starts, axis=0, dtype=np.int32)
            count[np.ix_(rows, columns)] = np.add.reduceat(by_row, column_starts, axis=1)
        return counts.reshape(len(masks), self.grid_size[0] * self.grid_size[1])

    def label_counts(self, labels: np.ndarray, regions: int) -> np.ndarray:
        """How many pixels of each labelled region fall into each cell.

        `labels`: (H, W) integer, region number + 1, 0 for pixels of no region. Returns (regions, cells) int64.
        """
        grid_rows, grid_columns = self.grid_size
        cells = grid_rows * grid_columns
        cell_of_pixel = self.rows[:, None] * grid_columns + self.columns[None, :]
        inside = labels > 0
        keys = (labels[inside].astype(np.intp) - 1) * cells + cell_of_pixel[inside]
        return np.bincount(keys, minlength=regions * cells).reshape(regions, cells)

    def region_means(self, counts: np.ndarray) -> np.ndarray:
        """Average feature vector of every region.

        `counts`: (N, cells), pixels of each region in each cell, none of the regions empty. Returns (N, C) float64:
        the sums run in double precision, so that no order of summation shows in the maps.
        """
        rows, columns = self.grid_size
        cells = self.embedding[0, :, :rows, :columns].flatten(1).double()
        weights = torch.from_numpy(counts / counts.sum(axis=1, keepdims=True)).to(cells.device)
        return (weights @ cells.T).cpu().numpy()
