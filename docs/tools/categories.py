"""Draws the events of a data root by category: `python -m docs.tools.categories DATA_ROOT OUT.png`.

Each event is a square in its category's column: its monitor image with the label outlined. Needs matplotlib
(requirements-report.txt).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cli.script import run_script
from img_io import open_event, open_label
from rasters.raster import read_strips
from rasters.resize import resize_nearest
from report.figures import new_figure, require_matplotlib
from report.pictures import fitted_shape, shrink_image
from report.style import category_color
from utils import CATEGORIES, Event, list_events

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TILE, GAP, MARGIN = 21.0, 3.6, 4.0  # millimetres
HEADER, FOOTER = 9.0, 12.0
PIXELS = 320  # side of a tile's picture


class Tile(NamedTuple):
    """One event in the figure."""

    category: int
    picture: np.ndarray  # (h, w, 3) uint8, the monitor image
    label: np.ndarray | None  # (h, w) bool
    labelled_share: float | None  # of the image; None without a label


def read_tile(event: Event) -> Tile:
    """Read an event. Raises EventError if its images are damaged."""
    monitor = open_event(event).monitor
    shape = fitted_shape(monitor.shape, PIXELS)
    picture = shrink_image(monitor, shape).rgb
    if event.label is None:
        return Tile(event.category, picture, None, None)
    label = open_label(event)
    anomalous = sum(int(np.count_nonzero(band > 1)) for band in read_strips(label))
    share = anomalous / (label.shape[0] * label.shape[1])
    return Tile(event.category, picture, resize_nearest(label, shape) > 1, share)


def labelled_text(shares: Sequence[float]) -> str:
    """Format the labelled shares of images, as in `6 % labelled` or `3 to 9 % labelled`."""
    if not shares:
        return "no label"
    least, most = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    return f"{least} % labelled" if least == most else f"{least} to {most} % labelled"


def draw(axes: "Axes", columns: dict[int, list[Tile]], width: float, height: float) -> None:
    """Draw all categories on axes that fill a figure of this size in millimetres."""
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    for column, (category, tiles) in enumerate(columns.items()):
        x, color = MARGIN + column * (TILE + GAP), category_color(category)
        middle = x + TILE / 2
        for row, tile in enumerate(tiles):
            _draw_tile(axes, tile, x, FOOTER + row * (TILE + GAP), color)
        top = FOOTER + max(len(tiles), 1) * (TILE + GAP) - GAP
        if not tiles:
            _draw_frame(axes, x, FOOTER, "#b0b0b0", dashed=True)
            axes.text(middle, FOOTER + TILE / 2, "none", ha="center", va="center", color="#707070")
        axes.text(middle, top + 2, CATEGORIES[category][0], ha="center", va="bottom", size=8, weight="bold")
        count = f"{len(tiles)} event{'' if len(tiles) == 1 else 's'}"
        axes.text(middle, FOOTER - 3.5, count, ha="center", va="center", size=7.5)
        shares = [tile.labelled_share for tile in tiles if tile.labelled_share is not None]
        if tiles:
            text = labelled_text(shares)
            axes.text(middle, FOOTER - 7.3, text, ha="center", va="center", size=7, color="#505050")


def _draw_tile(axes: "Axes", tile: Tile, x: float, y: float, color: str) -> None:
    axes.imshow(tile.picture, extent=(x, x + TILE, y, y + TILE), aspect="auto", interpolation="antialiased")
    if tile.label is not None and tile.label.any():
        height, width = tile.label.shape
        columns, rows = (np.arange(width) + 0.5) / width * TILE, (np.arange(height)[::-1] + 0.5) / height * TILE
        for line, line_width in (("black", 1.6), ("white", 0.8)):
            axes.contour(x + columns, y + rows, tile.label, [0.5], colors=line, linewidths=line_width)
    _draw_frame(axes, x, y, color)


def _draw_frame(axes: "Axes", x: float, y: float, color: str, dashed: bool = False) -> None:
    """Draw a frame in a category's colour, with a thin dark edge for light colours."""
    xs, ys = np.array([0, 1, 1, 0, 0]) * TILE + x, np.array([0, 0, 1, 1, 0]) * TILE + y
    if dashed:
        axes.plot(xs, ys, color=color, lw=1, ls="--", clip_on=False)
        return
    axes.plot(xs, ys, color="#303030", lw=4.2, solid_joinstyle="miter", zorder=3)
    axes.plot(xs, ys, color=color, lw=3.2, solid_joinstyle="miter", zorder=4)


def main() -> int:
    """Draw the events of a data root by category; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_root", type=Path, help="folder with one folder per event")
    parser.add_argument("output", type=Path, help="the .png or .pdf file to write")
    args = parser.parse_args()
    require_matplotlib()
    tiles = [read_tile(event) for event in list_events(args.data_root).events]
    columns = {category: [tile for tile in tiles if tile.category == category] for category in CATEGORIES}
    rows = max(1, *(len(members) for members in columns.values()))
    width = 2 * MARGIN + len(columns) * (TILE + GAP) - GAP
    height = HEADER + rows * (TILE + GAP) - GAP + FOOTER
    with new_figure(args.output, width, height, constrained_layout=False) as figure:
        draw(figure.add_axes((0, 0, 1, 1)), columns, width, height)
    return 0


if __name__ == "__main__":
    run_script(main)
