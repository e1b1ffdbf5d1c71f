"""Draws stand-ins for SAM's masks, for measurements where only random weights are at hand.

A decoder with random weights gives noise: what follows it (filters, suppression, clean-up, averages) then takes no
time that resembles a real run's. Blobs give that work masks of real numbers and sizes.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from segment_anything.modeling import Sam

# Points in one square of a level see the same object, as neighbouring points of a real image do; squares a side.
SQUARES = (8, 5, 3)
MASK_STRIDE = 4  # pixels of the encoder's input a pixel of the decoder's masks is wide, as in every SAM
HIGHEST_LOGIT, LOWEST_LOGIT = 16.0, -20.0  # neither is reached
NOWHERE = -100.0  # radius of a hole or an island that is not there

_DRAWING: list[float] = []  # seconds of every call of blob_masks


def blob_masks(points: torch.Tensor, encoder_size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three masks for each point, as the mask decoder gives them: one of each of three levels of object size.

    Parameters
    ----------
    points
        (B, 2) float: x, y in pixels of the encoder's input, of which eighths count.
    encoder_size
        Side of the encoder's input, pixels.
    seed
        Other seeds give other objects.

    Returns
    -------
    Logits, (B, 3, L, L) float32 with `L = encoder_size // 4`, and predicted IoUs, (B, 3) float32 in [0.3, 0.8), on
    the points' device. Both follow from the point and the seed alone, whatever the batch.

    Notes
    -----
    Of a grid of 32 x 32 points, 62 to 68 % of the masks have a stability score of 0.4 or more (offset 1), 40 % a
    predicted IoU above 0.6, a quarter both; logits lie between -20 and 11.1. With the published parameters and seed 0
    93 masks of a window of 2048 pixels survive both suppressions; the quartiles of their areas are 12700, 29100 and
    48400 pixels, the extremes 4000 and 365000. The clean-up finds small holes in 31 of them, small islands in 43.

    """
    started = time.perf_counter()
    points = points.double()
    squares = torch.tensor(SQUARES, dtype=torch.float64, device=points.device)[:, None]
    square = (points[:, None] * squares / encoder_size).floor()  # (B, 3, 2)
    of_object = _Draws(square.long(), seed)
    of_point = _Draws((points * 8).round().long()[:, None].expand(-1, 3, 2), seed + 1)
    side = encoder_size / squares[:, 0]
    radius = side * of_object.uniform(0.15, 0.5) * of_point.uniform(0.95, 1.05)  # (B, 3), like all draws
    x, y = (_table(encoder_size, (square[..., axis] + of_object.uniform(0.35, 0.65)) * side, radius) for axis in (0, 1))
    logits = _saturate(_inside(x, y, of_object) / of_point.uniform(0.03, 0.28)[..., None, None].float())
    predicted_iou = of_point.uniform(0.3, 0.8).float()
    _DRAWING.append(time.perf_counter() - started)
    return logits, predicted_iou


def drawing_seconds() -> float:
    """What this process's CPU has spent on drawing blobs; a GPU's time is not in it."""
    return sum(_DRAWING)


class _Draws:
    """Numbers that look random, from integers alone: the finalizer of splitmix64 over (level, x, y, seed, draw)."""

    def __init__(self, places: torch.Tensor, seed: int) -> None:
        """`places`: (B, 3, 2) int64, x and y at three levels."""
        level = torch.arange(3, device=places.device)
        # int64 wraps on every device. Large odd factors keep x, y, level and seed from adding up to the same key.
        self._key = (
            places[..., 0] * 0x1F83D9ABFB41BD6B
            + places[..., 1] * 0x2545F4914F6CDD1D
            + level * 0x3C6EF372FE94F82B
            + (seed * 0x510E527FADE682D1) % 2**62
        )

    def uniform(self, low: float, high: float) -> torch.Tensor:
        """The next draw, (B, 3) float64 in [low, high)."""
        self._key = self._key + 0x1E3779B97F4A7C15
        mixed = (self._key ^ _shift_right(self._key, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
        mixed = (mixed ^ _shift_right(mixed, 27)) * (0x94D049BB133111EB - 2**64)
        mixed = mixed ^ _shift_right(mixed, 31)
        return low + (high - low) * _shift_right(mixed, 11).double() / 2**53


def _shift_right(values: torch.Tensor, bits: int) -> torch.Tensor:
    return (values >> bits) & (2 ** (64 - bits) - 1)  # int64's own shift repeats the sign


def _table(encoder_size: int, center: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Where the masks' pixels lie along one axis, in radii from the center: (B, 3, L) float64."""
    pixels = (torch.arange(encoder_size // MASK_STRIDE, device=center.device) + 0.5) * MASK_STRIDE
    return (pixels - center[..., None]) / radius[..., None]


def _inside(x: torch.Tensor, y: torch.Tensor, draws: _Draws) -> torch.Tensor:
    """About the distance to a blob's edge, in radii, positive inside: (B, 3, L, L) float32.

    The blob is an ellipse with a wavy edge, every other one with a hole, every other one with an island beside it.
    Tables along one axis are in double precision and then rounded; the images take nothing but arithmetic and roots,
    which are exactly rounded. So no device and no batch shows in the result.
    """
    stretch = draws.uniform(1, 1.35)[..., None]
    turn = draws.uniform(0, math.pi)[..., None]
    along = _outer_sum(x * turn.cos() / stretch, y * turn.sin() / stretch)
    across = _outer_sum(-x * turn.sin() * stretch, y * turn.cos() * stretch)
    waves = (
        draws.uniform(0.03, 0.12)[..., None]
        * (axis * draws.uniform(2, 9)[..., None] + draws.uniform(0, 2 * math.pi)[..., None]).sin()
        for axis in (x, y)
    )
    inside = 1 - (along * along + across * across).sqrt() + _outer_sum(*waves)
    hole = _disk(x, y, draws, away=0.45, largest=0.3)
    island = _disk(x, y, draws, away=1.7, largest=0.3)
    return torch.minimum(torch.maximum(inside, island), -hole)


def _disk(x: torch.Tensor, y: torch.Tensor, draws: _Draws, away: float, largest: float) -> torch.Tensor:
    """Distance to the edge of a disk `away` from the center, positive inside; half of the disks lie nowhere."""
    turn = draws.uniform(0, 2 * math.pi)[..., None]
    radius = draws.uniform(-largest, largest)
    radius = torch.where(radius > 0, radius, NOWHERE)[..., None, None].float()
    return radius - _outer_sum((x - away * turn.cos()) ** 2, (y - away * turn.sin()) ** 2).sqrt()


def _outer_sum(along_x: torch.Tensor, along_y: torch.Tensor) -> torch.Tensor:
    return along_x.float()[..., None, :] + along_y.float()[..., :, None]


def _saturate(logits: torch.Tensor) -> torch.Tensor:
    limit = torch.where(logits > 0, HIGHEST_LOGIT, -LOWEST_LOGIT)
    return logits / (1 + logits.abs() / limit)


@contextmanager
def use_blobs(model: Sam, seed: int) -> Iterator[None]:
    """Let the model's mask decoder run at its full cost, then put blobs in the place of what it returns.

    The prompt encoder's calls tell the points. Each prompt must be one point, with three masks asked for, as
    segment_anything's automatic mask generator does it.
    """
    points = torch.empty(0)

    def remember_points(_module: torch.nn.Module, _arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal points
        points = keywords["points"][0][:, 0]

    def replace_masks(
        _module: torch.nn.Module, _arguments: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        blobs = blob_masks(points, model.image_encoder.img_size, seed)
        if [tensor.shape for tensor in blobs] != [tensor.shape for tensor in output]:
            raise ValueError(f"blobs are for {len(points)} points with three masks each, not {output[0].shape}")
        return blobs

    hooks = (
        model.prompt_encoder.register_forward_pre_hook(remember_points, with_kwargs=True),
        model.mask_decoder.register_forward_hook(replace_masks),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
