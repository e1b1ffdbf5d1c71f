"""Draws stand-ins for SAM's masks, for measurements with random weights.

A decoder with random weights gives noise, on which the later steps (filters, suppression, clean-up, averages) do not
take the time of a real run. Blobs give these steps masks of realistic numbers and sizes.
"""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from segment_anything.modeling import Sam

# Squares per side at each level. Points in one square get the same object, as neighbours in a real image do.
SQUARES = (8, 5, 3)
MASK_STRIDE = 4  # pixels of the encoder's input per pixel of the decoder's masks, per side, as in every SAM
HIGHEST_LOGIT, LOWEST_LOGIT = 16.0, -20.0  # neither is reached
ABSENT_RADIUS = -100.0  # radius of an absent hole or island

_DRAWING: defaultdict[int, float] = defaultdict(float)  # seconds of blob_masks, by thread


def blob_masks(points: torch.Tensor, encoder_size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return three masks per point in the mask decoder's format, one for each level of object size.

    Parameters
    ----------
    points
        (B, 2) float: x, y in pixels of the encoder's input, with a precision of 1/8 pixel.
    encoder_size
        Side of the encoder's input, pixels.
    seed
        Other seeds give other objects.

    Returns
    -------
    Logits, (B, 3, L, L) float32 with `L = encoder_size // 4`, and predicted IoUs, (B, 3) float32 in [0.3, 0.8), on
    the points' device. Both depend only on the point and the seed, not on the batch.

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
    _DRAWING[threading.get_ident()] += time.perf_counter() - started
    return logits, predicted_iou


def drawing_seconds() -> dict[int, float]:
    """Return the seconds that each thread of this process has spent on drawing blobs so far, without GPU time."""
    return dict(_DRAWING)


class _Draws:
    """Pseudo-random numbers from integers alone: the finalizer of splitmix64 over (level, x, y, seed, draw)."""

    def __init__(self, centers: torch.Tensor, seed: int) -> None:
        """`centers`: (B, 3, 2) int64, x and y at three levels."""
        level = torch.arange(3, device=centers.device)
        # int64 wraps on every device. Large odd factors keep x, y, level and seed from adding up to the same key.
        self._key = (
            centers[..., 0] * 0x1F83D9ABFB41BD6B
            + centers[..., 1] * 0x2545F4914F6CDD1D
            + level * 0x3C6EF372FE94F82B
            + (seed * 0x510E527FADE682D1) % 2**62
        )

    def uniform(self, low: float, high: float) -> torch.Tensor:
        """Return the next draw, (B, 3) float64 in [low, high)."""
        self._key = self._key + 0x1E3779B97F4A7C15
        mixed = (self._key ^ _shift_right(self._key, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
        mixed = (mixed ^ _shift_right(mixed, 27)) * (0x94D049BB133111EB - 2**64)
        mixed = mixed ^ _shift_right(mixed, 31)
        return low + (high - low) * _shift_right(mixed, 11).double() / 2**53


def _shift_right(values: torch.Tensor, bits: int) -> torch.Tensor:
    return (values >> bits) & (2 ** (64 - bits) - 1)  # the mask clears the copies of the sign bit


def _table(encoder_size: int, center: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Return the masks' pixel positions along one axis, in radii from the center: (B, 3, L) float64."""
    pixels = (torch.arange(encoder_size // MASK_STRIDE, device=center.device) + 0.5) * MASK_STRIDE
    return (pixels - center[..., None]) / radius[..., None]


def _inside(x: torch.Tensor, y: torch.Tensor, draws: _Draws) -> torch.Tensor:
    """Approximate the distance to a blob's edge, in radii, positive inside: (B, 3, L, L) float32.

    A blob is an ellipse with a wavy edge; half of the blobs have a hole, and half have an island beside them. Tables
    along one axis are computed in double precision and then rounded; the images need only arithmetic and square roots,
    which are exactly rounded. So the result depends neither on the device nor on the batch.
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
    hole = _disk(x, y, draws, distance=0.45, max_radius=0.3)
    island = _disk(x, y, draws, distance=1.7, max_radius=0.3)
    return torch.minimum(torch.maximum(inside, island), -hole)


def _disk(x: torch.Tensor, y: torch.Tensor, draws: _Draws, distance: float, max_radius: float) -> torch.Tensor:
    """Return the distance to the edge of a disk at `distance` from the center, positive inside; half are absent."""
    turn = draws.uniform(0, 2 * math.pi)[..., None]
    radius = draws.uniform(-max_radius, max_radius)
    radius = torch.where(radius > 0, radius, ABSENT_RADIUS)[..., None, None].float()
    return radius - _outer_sum((x - distance * turn.cos()) ** 2, (y - distance * turn.sin()) ** 2).sqrt()


def _outer_sum(along_x: torch.Tensor, along_y: torch.Tensor) -> torch.Tensor:
    return along_x.float()[..., None, :] + along_y.float()[..., :, None]


def _saturate(logits: torch.Tensor) -> torch.Tensor:
    limit = torch.where(logits > 0, HIGHEST_LOGIT, -LOWEST_LOGIT)
    return logits / (1 + logits.abs() / limit)


@contextmanager
def use_blobs(model: Sam, seed: int) -> Iterator[None]:
    """Run the model's mask decoder at its full cost within the block, but replace its output with blobs.

    The points are taken from the prompt encoder's calls. Each prompt must be one point with three masks requested, as
    in segment_anything's automatic mask generator.
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
