"""Averages SAM features over regions of a window without upsampling them (docs/method.md, section 3).

The encoder returns a grid of feature cells per window. Averaging a nearest-upsampled feature map over a region equals
averaging the cells, each weighted by the number of the region's pixels in it. So the averages of all regions of a
window are one matrix product: (regions x cells) @ (cells x C).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sam.masks import Mask
from sam.run_lengths import RunLengths


@dataclass(frozen=True)
class WindowFeatures:
    """SAM's encoder output for one window, and the feature cell of each of the window's pixels.

    SAM scales a window so that its longer side has the encoder's input size, and pads the shorter side. `rows` and
    `columns` cover the window without the padding, so no pixel belongs to the cells of the padding.
    """

    embedding: Tensor  # (1, C, G, G) float32, on the engine's device, padding included
    input_size: tuple[int, int]  # height and width of the scaled window, before padding
    rows: np.ndarray  # (H,) intp: cell row of every pixel row
    columns: np.ndarray  # (W,) intp: cell column of every pixel column

    @classmethod
    def from_embedding(
        cls, embedding: Tensor, window_size: tuple[int, int], input_size: tuple[int, int], encoder_size: int
    ) -> "WindowFeatures":
        """Assign pixels to cells: a `window_size` (H, W) window, scaled to `input_size` in an `encoder_size` square."""
        grid = embedding.shape[-1]
        rows, columns = (
            # Pixel p lies at p * scaled / length in the encoder's input, whose cells are encoder_size / grid wide.
            # Integer arithmetic, without rounding; if the window fills the input, this is floor(p * G / length).
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

    def moved(self, tolerance: int) -> "Iterator[WindowFeatures]":
        """Yield the features moved by up to `tolerance` cells in each direction, without those that are not moved.

        Cells beyond the window's edge repeat it. With 0, nothing is yielded.
        """
        rows, columns = (torch.arange(length, device=self.embedding.device) for length in self.grid_size)
        steps = range(-tolerance, tolerance + 1)
        for y, x in itertools.product(steps, steps):
            if x or y:
                from_rows, from_columns = (rows + y).clamp(0, len(rows) - 1), (columns + x).clamp(0, len(columns) - 1)
                yield replace(self, embedding=self.embedding[:, :, from_rows][..., from_columns])

    def mask_counts(self, masks: Sequence[Mask]) -> Tensor:
        """Count the pixels of each mask in each cell: (N, cells) float64, on the device. Masks may overlap."""
        rows, columns = (
            torch.from_numpy(cells == np.arange(count)[:, None]).to(self.embedding.device, torch.float32)
            for cells, count in zip((self.rows, self.columns), self.grid_size, strict=True)
        )
        counts = torch.zeros(len(masks), *self.grid_size, dtype=torch.float64, device=self.embedding.device)
        flat = torch.from_numpy(np.concatenate([mask.pixels.ravel() for mask in masks] or [np.zeros(0, bool)]))
        pixels = flat.to(self.embedding.device).split([mask.pixels.size for mask in masks])
        for mask, its_pixels, count in zip(masks, pixels, counts, strict=True):
            y, x = mask.box.slices
            # Integers below 2**24 are exact in float32, in any order of summation.
            count[:] = rows[:, y] @ its_pixels.view(mask.pixels.shape).to(torch.float32) @ columns[:, x].T
        return counts.flatten(1)

    def run_counts(self, runs: RunLengths, regions: np.ndarray, region_count: int) -> Tensor:
        """Count the pixels of each region, given as runs, in each cell: (region_count, cells) float64, on the device.

        `regions`: (R,) integer, the region of each run, from 0 to `region_count` - 1.
        """
        grid_rows, grid_columns = self.grid_size
        edges = np.searchsorted(self.columns, np.arange(grid_columns + 1))  # first pixel column of each cell
        first, last = self.columns[runs.column], self.columns[runs.column + runs.length - 1]
        pieces = last - first + 1  # runs are split at the borders of cells
        run = np.repeat(np.arange(len(pieces)), pieces)
        column = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + first[run]
        begin = np.maximum(runs.column[run], edges[column])
        end = np.minimum(runs.column[run] + runs.length[run], edges[column + 1])
        cells = (regions[run] * grid_rows + self.rows[runs.row[run]]) * grid_columns + column
        counts = np.bincount(cells, weights=end - begin, minlength=region_count * grid_rows * grid_columns)
        return torch.from_numpy(counts.reshape(region_count, grid_rows * grid_columns)).to(self.embedding.device)


def region_means(counts: Tensor, windows: Sequence[WindowFeatures]) -> list[np.ndarray]:
    """Average the features of every region in each of several images of one window.

    `counts`: (N, cells), pixels of each region in each cell; no region is empty. Returns one (N, C) float64 array per
    image. Sums are in double precision, so that the order of summation does not show in the maps.
    """
    rows, columns = windows[0].grid_size
    cells = torch.cat([window.embedding[0, :, :rows, :columns].flatten(1) for window in windows]).double()
    means = (counts / counts.sum(dim=1, keepdim=True)) @ cells.T
    return np.split(means.cpu().numpy(), len(windows), axis=1)
