"""Draws synthetic aerial scenes: one place on several dates, its seasons, and a disaster on the last date.

The world is made of patches (fields, woods, water, roads, roofs), painted in order. Crop fields cycle
bare -> green -> ripe from date to date, so that the reference and the monitor image differ in ways that earlier dates
explain; stage 2 has to suppress these changes. Light, contrast, colour cast and noise differ from date to date.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator


class Surface(NamedTuple):
    """The appearance of a kind of ground."""

    color: tuple[int, int, int]  # mean RGB
    grain: float  # amplitude of the texture, grey levels
    grain_size: int  # size of the texture's grains, pixels


SURFACES = {
    "water": Surface((38, 62, 84), 3, 8),
    "forest": Surface((34, 66, 36), 14, 3),
    "crop_bare": Surface((150, 120, 92), 9, 2),
    "crop_green": Surface((88, 132, 58), 8, 2),
    "crop_ripe": Surface((196, 172, 96), 8, 2),
    "grass": Surface((112, 138, 84), 7, 3),
    "roof": Surface((176, 168, 164), 6, 1),
    "road": Surface((122, 120, 118), 3, 1),
    "soil": Surface((178, 142, 104), 10, 3),
    "burnt": Surface((40, 34, 32), 8, 3),
    "debris": Surface((136, 126, 118), 34, 2),
    "mud": Surface((120, 98, 66), 5, 8),
}
SURFACE_INDEX = {name: index for index, name in enumerate(SURFACES)}
CROP_CYCLE = ("crop_bare", "crop_green", "crop_ripe")


@dataclass(frozen=True)
class Patch:
    """One object on the ground: a polygon, or a polyline of `line_width` pixels."""

    outline: np.ndarray  # (N, 2) float64: x, y in pixels
    kind: str  # a surface, or "crop", whose surface changes with the date
    tint: np.ndarray  # (3,) float64: added to the surface's colour
    phase: int = 0  # place in the crop cycle on the first date
    line_width: int = 0
    label: int = 0  # class in the label raster; 0 if not an anomaly

    def surface(self, date: int) -> int:
        """Return the index in SURFACES on the `date`-th date."""
        return SURFACE_INDEX[CROP_CYCLE[(self.phase + date) % 3] if self.kind == "crop" else self.kind]


class Painting(NamedTuple):
    """A scene on one date, before light and texture."""

    surfaces: np.ndarray  # (S, S) uint8: index in SURFACES
    instances: np.ndarray  # (S, S) int32: 0 for the ground, then the number of the patch
    tints: np.ndarray  # (S, S, 3) float32


class SyntheticEvent(NamedTuple):
    """Images of one place. All (S, S, 3) uint8; the label is (S, S) uint8, None for a normal control."""

    historical: list[np.ndarray]  # oldest first; the last one is the reference image
    monitor: np.ndarray
    label: np.ndarray | None


def _blob(
    rng: Generator, y: float, x: float, radius: float, stretch: float = 1.0, angle: float = 0.0, roughness: float = 0.35
) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radii = np.ones(len(turn))
    for k in range(1, 6):
        radii += roughness / k * rng.normal() * np.cos(k * turn + rng.uniform(0, 2 * np.pi))
    radii = np.clip(radii, 0.35, 2) * radius
    along, across = radii * np.cos(turn) * stretch, radii * np.sin(turn)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + cos * along - sin * across, y + sin * along + cos * across], 1)


def _rectangle(y: float, x: float, height: float, width: float, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    return corners @ np.array([[cos, sin], [-sin, cos]]) + [x, y]


def _patch(rng: Generator, outline: np.ndarray, kind: str, line_width: int = 0) -> Patch:
    spread = {"roof": 38, "crop": 7, "grass": 8, "soil": 10}.get(kind, 4)
    tint = rng.normal(0, spread, 3) * 0.5 + rng.normal(0, spread)
    if kind == "roof" and rng.random() < 0.3:
        tint += [30, -30, -40]  # tiled
    return Patch(outline, kind, tint, phase=int(rng.integers(0, 3)), line_width=line_width)


def _fields(rng: Generator, size: int, scale: float) -> list[Patch]:
    """Return a skewed, jittered grid of fields over the whole scene; a quarter of them are divided in two."""
    angle = rng.uniform(0, np.pi)
    cell = rng.uniform(0.09, 0.2) * scale
    n = int(np.ceil(1.5 * size / cell))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    nodes = np.stack(np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"), -1).astype(float)
    nodes += rng.uniform(-0.22, 0.22, nodes.shape)
    nodes = ((nodes - n / 2) * cell) @ rotation.T + size / 2
    patches = []
    for i, j in np.ndindex(n, n):
        corners = np.array([nodes[i, j], nodes[i, j + 1], nodes[i + 1, j + 1], nodes[i + 1, j]])
        if (corners.max(0) < 0).any() or (corners.min(0) > size).any():
            continue
        kind = str(rng.choice(["crop", "grass", "forest", "soil"], p=[0.62, 0.18, 0.12, 0.08]))
        if rng.random() < 0.25:
            cut = rng.uniform(0.3, 0.7)
            top = corners[0] * cut + corners[1] * (1 - cut)
            bottom = corners[3] * cut + corners[2] * (1 - cut)
            patches.append(_patch(rng, np.array([corners[0], top, bottom, corners[3]]), kind))
            kind = str(rng.choice(["crop", "grass"]))
            corners = np.array([top, corners[1], corners[2], bottom])
        patches.append(_patch(rng, corners, kind))
    return patches


def _woods_and_lakes(rng: Generator, size: int, scale: float) -> list[Patch]:
    patches = []
    for _ in range(rng.integers(1, 4)):
        y, x = rng.uniform(0, size, 2)
        outline = _blob(rng, y, x, rng.uniform(0.05, 0.12) * scale, rng.uniform(1, 2), rng.uniform(0, np.pi))
        patches.append(_patch(rng, outline, str(rng.choice(["water", "forest", "forest"]))))
    return patches


def _roads(rng: Generator, size: int, scale: float) -> list[Patch]:
    patches = []
    for _ in range(rng.integers(1, 4)):
        middle, angle = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * size * 1.5
        line = np.array([middle - reach, middle + rng.normal(0, 0.04 * size, 2), middle + reach])
        patches.append(_patch(rng, line, "road", line_width=max(2, int(rng.uniform(0.008, 0.016) * scale))))
    return patches


def _villages(rng: Generator, size: int, scale: float) -> list[Patch]:
    patches = []
    for _ in range(rng.integers(1, 4)):
        y, x = rng.uniform(0.1 * size, 0.9 * size, 2)
        angle = rng.uniform(0, np.pi)
        plot = rng.uniform(0.035, 0.07) * scale
        rows, columns = rng.integers(2, 5, 2)
        ground = _rectangle(y, x, rows * plot * 1.25, columns * plot * 1.25, angle)
        patches.append(_patch(rng, ground, str(rng.choice(["grass", "soil", "road"]))))
        cos, sin = np.cos(angle), np.sin(angle)
        for i, j in np.ndindex(rows, columns):
            if rng.random() < 0.12:
                continue
            down, right = (i - (rows - 1) / 2) * plot * 1.2, (j - (columns - 1) / 2) * plot * 1.2
            house = _rectangle(
                y + sin * right + cos * down,
                x + cos * right - sin * down,
                plot * rng.uniform(0.55, 0.9),
                plot * rng.uniform(0.6, 1.0),
                angle,
            )
            patches.append(_patch(rng, house, "roof"))
    return patches


def build_world(rng: Generator, size: int, zoom: float = 1.0) -> list[Patch]:
    """Return the patches of a place of `size` x `size` pixels, in painting order; `zoom` enlarges all of them."""
    scale = size * zoom
    return [patch for part in (_fields, _woods_and_lakes, _roads, _villages) for patch in part(rng, size, scale)]


def disaster(rng: Generator, size: int, category: int) -> list[Patch]:
    """Return the patches that a disaster of `category` (1 explosion ... 5 dam break) leaves in a scene."""
    y, x = rng.uniform(0.25 * size, 0.75 * size, 2)
    # kind, label, radius, stretch
    shapes = {
        1: [("debris", 3, 0.13, 1.0), ("burnt", 2, 0.06, 1.0)],
        2: [("debris", 2, 0.11, 1.0)],
        3: [("soil", 2, 0.08, 2.2)],
        4: [("burnt", 2, 0.15, 1.4)],
        5: [("mud", 2, 0.1, 2.5)],
    }[category]
    return [
        Patch(_blob(rng, y, x, radius * size, stretch, rng.uniform(0, 3)), kind, rng.normal(0, 5, 3), label=label)
        for kind, label, radius, stretch in shapes
    ]


def paint(patches: Sequence[Patch], size: int, date: int) -> Painting:
    """Paint the patches in order, with their surfaces on the `date`-th date."""
    surfaces = np.full((size, size), SURFACE_INDEX["grass"], np.uint8)
    instances = np.zeros((size, size), np.int32)
    for number, patch in enumerate(patches, 1):
        points = np.round(patch.outline).astype(np.int32)
        for image, value in ((surfaces, patch.surface(date)), (instances, number)):
            if patch.line_width:
                cv2.polylines(image, [points], False, value, patch.line_width)
                continue
            if patch.kind == "roof":  # walls, seen a little from the side
                cv2.fillPoly(image, [points + max(1, size // 170)], value)
            cv2.fillPoly(image, [points], value)
    tints = np.array([np.zeros(3), *(patch.tint for patch in patches)], np.float32)
    return Painting(surfaces, instances, tints[instances])


def render(rng: Generator, painting: Painting, noise: float = 3.0) -> np.ndarray:
    """Add texture, random light and colour cast, blur, and sensor noise of `noise` grey levels to a painting.

    Returns (S, S, 3) uint8 RGB.
    """
    size = painting.surfaces.shape[0]
    colors = np.array([s.color for s in SURFACES.values()], np.float32)
    grain = np.array([s.grain for s in SURFACES.values()], np.float32)
    grain_size = np.array([s.grain_size for s in SURFACES.values()])
    texture = np.zeros((size, size), np.float32)
    for step in np.unique(grain_size):
        coarse = rng.normal(size=(size // int(step) + 2,) * 2).astype(np.float32)
        fine = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC if step > 1 else cv2.INTER_NEAREST)
        here = grain_size[painting.surfaces] == step
        texture[here] = fine[here]
    image = colors[painting.surfaces] + painting.tints + (texture * grain[painting.surfaces])[..., None]
    cast = rng.uniform(0.85, 1.15) * rng.uniform(0.96, 1.04, 3)
    image = (image - 128) * rng.uniform(0.85, 1.15) + 128
    image = image * cast + rng.normal(0, 6)
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.7)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def make_event(
    seed: int, category: int, size: int = 1024, historical_dates: int = 4, zoom: float = 1.9
) -> SyntheticEvent:
    """Draw a place on `historical_dates` normal dates and on a monitor date with a disaster of `category`.

    Category 0 is a normal control: its monitor image shows one more season and no disaster.
    """
    rng = np.random.default_rng(seed)
    world = build_world(rng, size, zoom)
    historical = [render(rng, paint(world, size, date)) for date in range(historical_dates)]
    traces = disaster(rng, size, category) if category else []
    monitor = render(rng, paint(world + traces, size, historical_dates))
    if not traces:
        return SyntheticEvent(historical, monitor, None)
    label = np.zeros((size, size), np.uint8)
    for patch in traces:
        cv2.fillPoly(label, [np.round(patch.outline).astype(np.int32)], patch.label)
    return SyntheticEvent(historical, monitor, label)
