"""Measures masks at full size from the decoder's low-resolution logits: areas at two thresholds, and boxes.

SAM brings a mask's logits to the window's size by two bilinear interpolations, whose results stay within the range of
the logits they mix. So if all logits of a block of the window lie on one side of a threshold, so do its pixels; only
the blocks that contain a mask's edge are interpolated.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

REACH = 3  # consecutive logits per axis that a block of pixels can depend on
LARGEST_BLOCK = 128  # pixels per side; counts along a side must fit in a byte
PIXELS_AT_ONCE = {"cuda": 1 << 22, "cpu": 1 << 18}  # interpolated pixels held in memory; on a CPU, in its caches
OUTSIDE = 1 << 30  # beyond any window
LOWEST = -1e30  # a logit below those of any SAM; finite, as it is multiplied by weights of 0


class MaskMeasures(NamedTuple):
    """Measures of n masks for SAM's filters, in pixels of the window."""

    area_low: Tensor  # (n,) int64: pixels above threshold - offset
    area_high: Tensor  # (n,) int64: pixels above threshold + offset
    boxes: Tensor  # (n, 4) int64: first column, first row, last column, last row; all 0 for an empty mask

    @property
    def stability(self) -> Tensor:
        """SAM's stability score, (n,) float32: the IoU of the masks at the two thresholds; NaN if both are empty."""
        return self.area_high.to(torch.int32) / self.area_low.to(torch.int32)


class LogitPart(NamedTuple):
    """The logits of a mask on which the pixels of its box depend; no pixel outside of the box is in the mask."""

    logits: Tensor  # (h, w) float32
    row: int  # of the first logit
    column: int
    size: int  # L, of all logits

    def whole(self) -> Tensor:
        """Return logits of the same mask, (L, L) float32."""
        whole = self.logits.new_full((self.size, self.size), LOWEST)
        height, width = self.logits.shape
        whole[self.row : self.row + height, self.column : self.column + width] = self.logits
        return whole


class _Axis(NamedTuple):
    """The b blocks along one axis of a window, of up to p pixels each."""

    source: Tensor  # (b,) int64: first of the REACH logits that its pixels depend on
    start: Tensor  # (b,) int64: first pixel
    length: Tensor  # (b,) int64: pixels
    weights: Tensor  # (p, REACH, b) float32: of the logits in each pixel; NaN (compares as False) beyond the block


class _Totals(NamedTuple):
    """Running totals over blocks: areas at the three levels, first and last column and row, (n,) int64 each."""

    areas: list[Tensor]
    columns: tuple[Tensor, Tensor]
    rows: tuple[Tensor, Tensor]


class WindowScale:
    """The interpolation from the logits of masks to the pixels of a window.

    SAM interpolates logits, L x L, to the encoder's input, an `encoder_size` square, crops the result to `input_size`
    (h, w), and interpolates the crop to `window_size` (H, W).
    """

    def __init__(
        self,
        logit_size: int,
        encoder_size: int,
        input_size: tuple[int, int],
        window_size: tuple[int, int],
        device: torch.device,
    ) -> None:
        self._logit_size = logit_size
        self._logits_per_pixel = [  # along rows and columns
            logit_size / encoder_size * scaled / length for scaled, length in zip(input_size, window_size, strict=True)
        ]
        self._rows, self._columns = (
            _Axis(*(torch.from_numpy(part).to(device) for part in _blocks(logit_size, encoder_size, scaled, length)))
            for scaled, length in zip(input_size, window_size, strict=True)
        )

    def measure(self, logits: Tensor, threshold: float, offset: float, min_stability: float = 0) -> MaskMeasures:
        """Measure areas and boxes of n masks. `logits`: (n, L, L) float32. Pixels above `threshold` form a mask.

        Equal to counting in the interpolated mask, except for pixels within rounding of a threshold. A mask that cannot
        reach `min_stability`, by bounds from its blocks, is not interpolated: its `area_high` is 0.
        """
        levels = (threshold - offset, threshold, threshold + offset)
        lowest, highest = self._extremes(logits)
        rounding = 1e-5 * logits.abs().amax(dim=(1, 2))[:, None, None]  # far above the interpolation's rounding error
        crossed = torch.zeros_like(lowest, dtype=torch.bool)
        for level in levels:
            crossed |= (lowest <= level + rounding) & (highest > level - rounding)
        # Bounds on the areas: all blocks that may exceed the upper level, only those that surely exceed the lower one.
        most, least = self._areas([highest > levels[2] - rounding, lowest > levels[0] + rounding])
        unstable = most.double() < min_stability * (1 - 1e-6) * least.double()
        crossed &= ~unstable[:, None, None]
        totals = self._settled_totals([(lowest > level) & ~crossed for level in levels])
        mask, row, column = crossed.nonzero(as_tuple=True)
        step = max(1, PIXELS_AT_ONCE[logits.device.type] // (len(self._rows.weights) * len(self._columns.weights)))
        for block in zip(mask.split(step), row.split(step), column.split(step), strict=True):
            self._add_crossed(totals, logits, levels, *block)
        boxes = torch.stack([totals.columns[0], totals.rows[0], totals.columns[1], totals.rows[1]], dim=1)
        area_high = totals.areas[2].masked_fill(unstable, 0)
        return MaskMeasures(totals.areas[0], area_high, torch.where(boxes[:, 2:3] < 0, 0, boxes))

    def cut(self, logits: Tensor, kept: Tensor, boxes: Tensor) -> list[LogitPart]:
        """Copy the logits on which the pixels of masks' boxes depend; they need a fraction of the memory of all logits.

        `logits`: (n, L, L) float32. `kept`: (n,) bool, the masks that are copied. `boxes`: (k, 4), theirs.
        """
        parts = []
        for mask, (x0, y0, x1, y1) in zip(kept.nonzero()[:, 0].tolist(), boxes.tolist(), strict=True):
            # Each interpolation mixes two neighbours, so that a pixel depends on logits at most two beyond its own.
            (top, bottom), (left, right) = (
                (max(int(first * step) - 2, 0), int((last + 1) * step) + 3)
                for first, last, step in zip((y0, x0), (y1, x1), self._logits_per_pixel, strict=True)
            )
            parts.append(LogitPart(logits[mask, top:bottom, left:right].clone(), top, left, self._logit_size))
        return parts

    def _extremes(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest logit that each block depends on, (n, row blocks, column blocks) each."""
        padded = F.pad(logits[:, None], (0, REACH - 1, 0, REACH - 1), mode="replicate")[:, 0]
        extremes = []
        for choose in (torch.minimum, torch.maximum):
            tall = choose(choose(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
            square = choose(choose(tall[:, :, :-2], tall[:, :, 1:-1]), tall[:, :, 2:])
            extremes.append(square[:, self._rows.source][:, :, self._columns.source])
        return extremes[0], extremes[1]

    def _settled_totals(self, settled: list[Tensor]) -> _Totals:
        spans = []
        for inside, axis in ((settled[1].any(1), self._columns), (settled[1].any(2), self._rows)):
            first = torch.where(inside, axis.start, OUTSIDE).amin(1)
            last = torch.where(inside, axis.start + axis.length - 1, -1).amax(1)
            spans.append((first, last))
        return _Totals(self._areas(settled), *spans)

    def _areas(self, blocks: list[Tensor]) -> list[Tensor]:
        """Count the pixels of the true blocks, (n,) int64 each. `blocks`: (n, row blocks, column blocks) bool each."""
        heights, widths = self._rows.length.double(), self._columns.length.float()
        # The pixels of a row are few enough for float32, which counts exactly up to 2**24, and takes half the time.
        return [((inside.float() @ widths).double() @ heights).long() for inside in blocks]

    def _add_crossed(
        self, totals: _Totals, logits: Tensor, levels: tuple[float, ...], mask: Tensor, row: Tensor, column: Tensor
    ) -> None:
        """Interpolate m blocks, given by their mask, row and column, and add them to the totals.

        Blocks are the last axis of all arrays: each operation runs over contiguous numbers of many blocks.
        """
        rows, columns = self._rows, self._columns
        reach, last = torch.arange(REACH, device=logits.device)[:, None], logits.shape[-1] - 1
        patch_rows = (rows.source[row] + reach).clamp_(max=last)  # (REACH, m)
        patch_columns = (columns.source[column] + reach).clamp_(max=last)
        start = (mask * (last + 1) + patch_rows) * (last + 1)
        patch = torch.take(logits, start[:, None] + patch_columns)  # (REACH rows, REACH columns, m)
        row_weights, column_weights = rows.weights[..., row], columns.weights[..., column]  # (p, REACH, m) each
        tall = _mix((row_weights[:, k, None], patch[k]) for k in range(REACH))  # (p, REACH, m)
        pixels = _mix((column_weights[:, k], tall[:, k, None]) for k in range(REACH))  # (p rows, p columns, m)
        # As bytes: summing booleans first makes an int64 copy, which is ten times slower.
        above = [(pixels > level).view(torch.uint8) for level in levels]
        in_columns = [inside.sum(0, dtype=torch.uint8) for inside in above]  # (p columns, m) each
        for area, counts in zip(totals.areas, in_columns, strict=True):
            area.index_add_(0, mask, counts.sum(0))
        _widen(totals.columns, mask, columns.start[column], in_columns[1])
        _widen(totals.rows, mask, rows.start[row], above[1].amax(1))


def _mix(products: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sum of products."""
    (weight, value), *others = products
    total = weight * value
    for weight, value in others:
        total.addcmul_(weight, value)
    return total


def _widen(span: tuple[Tensor, Tensor], mask: Tensor, start: Tensor, inside: Tensor) -> None:
    """Extend the masks' first and last pixel to the non-zero ones of m blocks, in place.

    `start`: (m,). `inside`: (p, m) uint8.
    """
    # As int32: the minimum of int64 takes a hundred times longer on a CPU.
    position = start.int() + torch.arange(len(inside), dtype=torch.int32, device=inside.device)[:, None]
    span[0].scatter_reduce_(0, mask, torch.where(inside > 0, position, OUTSIDE).amin(0).long(), "amin")
    span[1].scatter_reduce_(0, mask, torch.where(inside > 0, position, -1).amax(0).long(), "amax")


def _blocks(logit_size: int, encoder_size: int, scaled: int, length: int) -> tuple[np.ndarray, ...]:
    """Return source, start, length and weights (see _Axis) of the blocks of an axis of `length` pixels."""
    # Two interpolations: each pixel mixes two pixels of the encoder's input, and each of these mixes two logits.
    near, far, far_share = _bilinear(length, scaled)
    first, second, second_share = _bilinear(encoder_size, logit_size)
    source = first[near]
    pixel_weights = np.zeros((length, REACH))
    for pixel, share in ((near, 1 - far_share), (far, far_share)):
        np.add.at(pixel_weights, (np.arange(length), first[pixel] - source), share * (1 - second_share[pixel]))
        np.add.at(pixel_weights, (np.arange(length), second[pixel] - source), share * second_share[pixel])
    run_starts = np.flatnonzero(np.diff(source, prepend=-1))
    run_lengths = np.diff(run_starts, append=length)
    size = min(int(np.median(run_lengths)), LARGEST_BLOCK)  # longer runs, at the border, become several blocks
    starts = np.concatenate(
        [np.arange(start, start + count, size) for start, count in zip(run_starts, run_lengths, strict=True)]
    )
    lengths = np.diff(starts, append=length)
    weights = np.full((len(starts), size, REACH), np.nan, np.float32)
    for block, start, count in zip(weights, starts, lengths, strict=True):
        block[:count] = pixel_weights[start : start + count]
    return source[starts], starts, lengths, np.ascontiguousarray(weights.transpose(1, 2, 0))


def _bilinear(size_out: int, size_in: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two inputs that each output mixes, and the second one's weight (PyTorch, `align_corners=False`)."""
    position = np.maximum((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0)
    first = np.minimum(position.astype(np.int64), size_in - 1)
    return first, np.minimum(first + 1, size_in - 1), position - first
