"""Draws one picture an event: reference, monitor, label, stage 1, stage 2: `python -m demo.panels`."""

import argparse
from pathlib import Path

import cv2
import numpy as np

from cli.progress import run_events
from cli.script import run_script
from evaluation.event_maps import EvalSettings, open_event_maps
from img_io import Image, open_event, read_window
from rasters.maps import write_picture
from rasters.raster import Raster, read_strips
from rasters.resize import resize_nearest
from utils import Event, Window, list_events

SIDE = 360  # of a tile, pixels
MARGIN, HEADER, FOOTER = 8, 34, 30
TEXT = cv2.FONT_HERSHEY_SIMPLEX
OUTLINE = (255, 60, 160)
LABEL_COLORS = np.array([(24, 24, 24), (90, 90, 90), (230, 70, 60), (250, 170, 60), (120, 190, 255)], np.uint8)


def _score_tile(scores: Raster, binary: Raster, highest: float) -> np.ndarray:
    """Scores on the viridis scale from 0 to `highest`, the binary map outlined."""
    grey = np.clip(resize_nearest(scores, (SIDE, SIDE)) / highest * 255, 0, 255).astype(np.uint8)
    tile = cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)[..., ::-1].copy()
    small = resize_nearest(binary, (SIDE, SIDE)).astype(np.uint8)
    contours, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, contours, -1, OUTLINE, 2)
    return tile


def _share(binary: Raster) -> float:
    """The share of a binary map's pixels that are set."""
    height, width = binary.shape
    return sum(np.count_nonzero(band) for band in read_strips(binary)) / (height * width)


def _photo_tile(image: Image) -> np.ndarray:
    pixels = read_window(image, Window(0, 0, image.shape[1], image.shape[0]))
    return cv2.resize(pixels.rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _label_tile(label: Raster | None) -> np.ndarray:
    if label is None:
        tile = np.full((SIDE, SIDE, 3), LABEL_COLORS[0], np.uint8)
        cv2.putText(tile, "no label", (SIDE // 2 - 60, SIDE // 2), TEXT, 0.8, (200, 200, 200), 1, cv2.LINE_AA)
        return tile
    return LABEL_COLORS[np.minimum(resize_nearest(label, (SIDE, SIDE)), len(LABEL_COLORS) - 1)]


def draw_event(event: Event, result_root: Path) -> np.ndarray:
    """The picture of one event from its images and stage 2's maps, (H, W, 3) uint8 RGB."""
    images, maps = open_event(event), open_event_maps(event, result_root, EvalSettings())
    tiles = {
        f"reference {event.reference.stem.split('_')[-1]}": _photo_tile(images.reference),
        f"monitor {event.monitor.stem.split('_')[-1]}": _photo_tile(images.monitor),
        "label": _label_tile(maps.label),
        f"stage 1: {_share(maps.changed):.1%} changed": _score_tile(maps.filtered, maps.changed, 1.0),
        f"stage 2: {_share(maps.anomalous):.1%} anomalous": _score_tile(maps.anomalies, maps.anomalous, 1.0),
    }
    width = len(tiles) * (SIDE + MARGIN) + MARGIN
    canvas = np.full((HEADER + SIDE + FOOTER, width, 3), 255, np.uint8)
    cv2.putText(canvas, event.name, (MARGIN, 24), TEXT, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
    legend = "scores 0 to 1, viridis; outlined: the binary map"
    cv2.putText(canvas, legend, (width - 520, 24), TEXT, 0.55, (90, 90, 90), 1, cv2.LINE_AA)
    for column, (caption, tile) in enumerate(tiles.items()):
        x = MARGIN + column * (SIDE + MARGIN)
        canvas[HEADER : HEADER + SIDE, x : x + SIDE] = tile
        cv2.putText(canvas, caption, (x, HEADER + SIDE + 21), TEXT, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def main() -> int:
    """Draw every event of a data root; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder with one folder an event")
    parser.add_argument("--result-root", type=Path, required=True, help="where stage 2 wrote its maps")
    parser.add_argument("--output", type=Path, required=True, help="folder for one PNG an event")
    args = parser.parse_args()

    def process(event: Event, event_done: object) -> None:
        write_picture(args.output / f"{event.name}.png", draw_event(event, args.result_root))

    return run_events("pictures", list_events(args.data_root), lambda event: 1, process, unit="event").exit_code


if __name__ == "__main__":
    run_script(main)
