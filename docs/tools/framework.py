"""Draws the method's framework with panels of a demo event: `python -m docs.tools.framework EVENTS RESULTS OUT.png`.

RESULTS is the folder with `stage1` and `stage2` that `make demo` writes. Features and masks are computed here, with
the same SAM. Needs matplotlib (requirements-report.txt).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import config
from cli.script import run_script
from img_io import Image, open_event, read_window
from report.event_panels import EventPanels, read_panels
from report.figures import new_figure, require_matplotlib
from report.style import SCORE_COLORS, category_color
from sam.engine import SamEngine
from sam.flags import SamFlags, add_sam_arguments
from sam.mask_generator import MaskParameters
from sam.settings import load_engine
from utils import Event, Window, list_events

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EVENT = "1_demo_explosion"
# Millimetres.
WIDTH, HEIGHT = 240.0, 138.0
TILE = 19.0  # side of a panel
SHIFT = 2.2  # offset between the panels of a stack
STAGE1, STAGE2, EVALUATION, INPUT = "#dfeaf6", "#fdeed8", "#e2f0e2", "#eeeeee"
INK, ARROW = "#202020", "#4a4a4a"
ON_ARROW = {"boxstyle": "square,pad=0.3", "fc": "white", "ec": "none"}


def encode(engine: SamEngine, rgb: np.ndarray) -> np.ndarray:
    """Return the features of an image, (H, W, 3) uint8, as (G, G, C) float32."""
    (features,) = engine.encode([engine.scale(rgb)])
    return features.embedding[0].permute(1, 2, 0).cpu().numpy()


def find_masks(engine: SamEngine, rgb: np.ndarray) -> np.ndarray:
    """Return the number of the smallest mask at each pixel of an image, (H, W) integer; 0 for none."""
    (features,) = engine.encode([engine.scale(rgb)])
    masks = engine.generator.generate(rgb, features, MaskParameters.of(config.STAGE1_SAM_PARAMS)).collect()
    numbers = np.zeros(rgb.shape[:2], int)
    for number, mask in enumerate(sorted(masks, key=lambda mask: -mask.area), 1):
        numbers[mask.box.slices][mask.pixels] = number
    return numbers


def feature_colors(features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Map the three main components of all images' features to colours, (G, G, 3) in [0, 1] per image."""
    together = np.concatenate([image.reshape(-1, image.shape[-1]) for image in features])
    mean = together.mean(axis=0)
    _, _, axes = np.linalg.svd(together - mean, full_matrices=False)
    projected = [(image - mean) @ axes[:3].T for image in features]
    low, high = np.percentile(np.concatenate([image.reshape(-1, 3) for image in projected]), (2, 98), axis=0)
    return [np.clip((image - low) / np.maximum(high - low, 1e-6), 0, 1) for image in projected]


def mask_colors(masks: np.ndarray) -> np.ndarray:
    """Return the masks in different colours, (H, W, 3) uint8; pixels in no mask are white."""
    colors = np.random.default_rng(3).integers(70, 230, (masks.max() + 1, 3), dtype=np.uint8)
    colors[0] = 255
    return colors[masks]


class Canvas:
    """A figure with coordinates in millimetres from its top left corner, for areas, panels, steps and arrows."""

    def __init__(self, axes: "Axes") -> None:
        """Take axes that fill the figure."""
        self.axes = axes
        axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        axes.set_axis_off()

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Draw text, by default centred at a point."""
        self.axes.text(x, y, text, **{"ha": "center", "va": "center", "color": INK, "size": 8.5, "zorder": 6, **style})

    def area(self, x: float, y: float, end_x: float, end_y: float, color: str, title: str) -> None:
        """Draw a coloured area with a title in its upper left corner."""
        self.axes.fill([x, end_x, end_x, x], [y, y, end_y, end_y], color=color, lw=0, zorder=0)
        self.text(x + 2.5, y + 4.5, title, ha="left", weight="bold", size=10.5)

    def step(self, x: float, y: float, end_x: float, end_y: float, text: str, **style: Any) -> None:
        """Draw a computation: a white box with text."""
        self.axes.fill([x, end_x, end_x, x], [y, y, end_y, end_y], facecolor="white", edgecolor=INK, lw=0.8, zorder=3)
        self.text((x + end_x) / 2, (y + end_y) / 2, text, linespacing=1.45, **style)

    def panel(self, x: float, y: float, picture: np.ndarray, caption: str = "", level: int = 0) -> None:
        """Draw a square picture, or scores of 0 to 1, with a caption below; higher levels cover lower ones."""
        end_x, end_y = x + TILE, y + TILE
        smooth = "antialiased" if picture.ndim == 3 and len(picture) > 64 else "nearest"
        extent = (x, end_x, end_y, y)
        self.axes.imshow(
            picture, SCORE_COLORS, vmin=0, vmax=1, extent=extent, interpolation=smooth, zorder=4 + level, aspect="auto"
        )
        edges = [x, end_x, end_x, x, x], [y, y, end_y, end_y, y]
        self.axes.plot(*edges, color="white", lw=2, zorder=4 + level)
        self.axes.plot(*edges, color=INK, lw=0.7, zorder=4 + level)
        self.text(x + TILE / 2, end_y + 1.2, caption, va="top", linespacing=1.2)

    def stack(self, x: float, y: float, pictures: Sequence[np.ndarray], caption: str) -> None:
        """Draw panels behind each other, the last one in front at the lower right."""
        for number, picture in enumerate(pictures):
            self.panel(x + SHIFT * number, y + SHIFT * number, picture, level=number)
        end = SHIFT * (len(pictures) - 1)
        self.text(x + (TILE + end) / 2, y + TILE + end + 1.2, caption, va="top", linespacing=1.2)

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw an arrow along straight lines between points."""
        *_, before, end = points
        xs, ys = zip(*points[:-1], strict=True)
        self.axes.plot(xs, ys, color=ARROW, lw=1.4, solid_joinstyle="miter", solid_capstyle="butt", zorder=2)
        head = {
            "arrowstyle": "-|>,head_width=0.25,head_length=0.5",
            "color": ARROW,
            "lw": 1.4,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        self.axes.annotate("", end, before, arrowprops=head, zorder=2)


def draw(axes: "Axes", panels: EventPanels, features: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
    """Draw the framework.

    `features`: colours of the features of all historical dates and the monitor date, (G, G, 3) each. `masks`: colours
    of the masks of the reference and the monitor image, (H, W, 3) each.
    """
    canvas = Canvas(axes)
    canvas.area(2, 2, 43, 136, INPUT, "One event")
    canvas.area(46, 2, 238, 63, STAGE1, "Stage 1: what changed?")
    canvas.area(46, 72, 187, 136, STAGE2, "Stage 2: what is new?")
    canvas.area(190, 72, 238, 136, EVALUATION, "Evaluation")
    draw_inputs(canvas, panels)
    draw_stage1(canvas, panels, features, masks)
    draw_stage2(canvas, panels, features)
    draw_evaluation(canvas, panels)


def draw_inputs(canvas: Canvas, panels: EventPanels) -> None:
    """Draw the images of the event."""
    canvas.panel(14, 11, panels.monitor.rgb, "monitor")
    canvas.panel(14, 37, panels.historical[-1].rgb, "reference")
    canvas.stack(8, 98, [image.rgb for image in panels.historical], "all historical dates,\nthe reference last")
    canvas.arrow((23.5, 62), (23.5, 97))
    canvas.text(25.5, 79, "is the\nlatest of", ha="left", color=ARROW)


def draw_stage1(
    canvas: Canvas, panels: EventPanels, features: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> None:
    """Draw the steps from the reference and the monitor image to the change map."""
    canvas.step(50, 11, 60, 56, "SAM image encoder", rotation=90)
    canvas.step(95, 11, 105, 56, "SAM mask generator", rotation=90)
    rows = ((11, features[-1], masks[1]), (37, features[-2], masks[0]))
    for y, feature, mask in rows:
        middle = y + TILE / 2
        canvas.arrow((33, middle), (50, middle))
        canvas.arrow((60, middle), (67, middle))
        canvas.panel(67, y, feature, "features")
        canvas.arrow((86, middle), (95, middle))
        canvas.arrow((105, middle), (112, middle))
        canvas.panel(112, y, mask, "masks")
        canvas.arrow((131, middle), (141, middle))
    text = (
        "for each mask\nof either image:\n\nmean features r of the\nreference image, m of the\nmonitor image;\n\n"
        "score = 1 − cos(r, m)"
    )
    canvas.step(141, 11, 190, 56, text, size=8)
    canvas.arrow((190, 33.5), (200, 33.5))
    canvas.panel(200, 24, panels.changes, "change map")
    bar = np.linspace(1, 0, 64)[:, None]
    canvas.axes.imshow(bar, SCORE_COLORS, extent=(225, 228, 43, 24), aspect="auto", zorder=4)
    canvas.text(229, 24.6, "1", ha="left")
    canvas.text(229, 42.4, "0", ha="left")
    canvas.text(233, 33.5, "score", rotation=90)


def draw_stage2(canvas: Canvas, panels: EventPanels, features: Sequence[np.ndarray]) -> None:
    """Draw the steps from the change map and all dates to the anomaly map."""
    canvas.arrow((209.5, 49), (209.5, 67.5), (107.5, 67.5), (107.5, 79))
    canvas.text(158, 67.5, "filter: below the 0.7 quantile, the score becomes 0", bbox=ON_ARROW)
    canvas.panel(98, 79, panels.filtered, "changed regions")
    canvas.step(50, 82, 60, 130, "SAM image encoder", rotation=90)
    canvas.arrow((36, 113), (50, 113))
    canvas.arrow((33, 24), (40, 24), (40, 90), (50, 90))
    canvas.arrow((60, 113), (66, 113))
    canvas.stack(66, 100.4, features[:-1], "features,\nhistorical dates")
    canvas.panel(98, 107, features[-1], "features,\nmonitor date")
    canvas.arrow((117, 88.5), (125, 88.5))
    canvas.arrow((117, 116.5), (125, 116.5))
    text = (
        "for each region:\n\nmean features m of\nthe monitor date, h of\n"
        "each historical date;\n\nscore =\n1 − max cos(h, m)"
    )
    canvas.step(125, 79, 160, 126, text, size=8)
    canvas.arrow((160, 102.5), (165, 102.5))
    canvas.panel(165, 93, panels.anomalies, "anomaly map")


def draw_evaluation(canvas: Canvas, panels: EventPanels) -> None:
    """Draw the steps from the anomaly map and the label to the scores."""
    assert panels.label is not None
    assert panels.scores is not None
    canvas.arrow((184, 102.5), (188.5, 102.5), (188.5, 86), (193, 86))
    canvas.step(193, 80.5, 235, 93, "score ≥ 0.08, closing,\nno small components", size=8)
    canvas.arrow((202.5, 93), (202.5, 96.5))
    canvas.panel(193, 96.5, binary_picture(panels.anomalous, "#ffffff"), "result")
    canvas.panel(216, 96.5, binary_picture(panels.label > 1, category_color(panels.event.category)), "label")
    recall, precision, f1 = panels.scores[1]
    canvas.arrow((202.5, 121), (202.5, 124.6))
    canvas.arrow((225.5, 121), (225.5, 124.6))
    canvas.step(193, 124.6, 235, 134.3, f"recall {recall:.2f}, precision {precision:.2f}\nF1 {f1:.2f}", size=8)


def binary_picture(binary: np.ndarray, color: str) -> np.ndarray:
    """Return a binary map as a picture in `color` on dark ground, (h, w, 3) uint8."""
    ground, ink = np.array([32, 32, 32]), np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)])
    return np.where(binary[..., None], ink, ground).astype(np.uint8)


def main() -> int:
    """Draw the framework; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_root", type=Path, help="folder with the demo events")
    parser.add_argument("results", type=Path, help="folder with stage1 and stage2")
    parser.add_argument("output", type=Path, help="the .png or .pdf file to write")
    add_sam_arguments(parser)
    parser.set_defaults(sam_model_type="vit_t")
    args = parser.parse_args()
    require_matplotlib()
    (event,) = list_events(args.data_root, EVENT).events
    panels = read_panels(event, args.results / "stage1", args.results / "stage2")
    engine, _ = load_engine(SamFlags.of(args))
    images = [read_window(image, Window(0, 0, image.shape[1], image.shape[0])).rgb for image in dates(event)]
    features = feature_colors([encode(engine, image) for image in images])
    masks = [mask_colors(find_masks(engine, image)) for image in images[-2:]]
    with new_figure(args.output, WIDTH, HEIGHT, constrained_layout=False) as figure:
        draw(figure.add_axes((0, 0, 1, 1)), panels, features, masks)
    return 0


def dates(event: Event) -> list[Image]:
    """Return all historical images and the monitor image."""
    images = open_event(event)
    return [*images.historical, images.monitor]


if __name__ == "__main__":
    run_script(main)
