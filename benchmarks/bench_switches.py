"""Measures what two changes of the method give, on drawn events and on events of one's own.

    python -m benchmarks.bench_switches --data-root my_data --points 16

- features without the scale and shift of each channel that end the encoder (AnyChange undoes them);
- `tolerance k`: the best match of a region within k feature cells, in both stages;
- both with the historical images shifted against the monitor image by 0 to 16 pixels.

SAM's masks are generated once per event; those of a shifted reference image are moved with it. One row per event,
variant and shift is appended to a CSV.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import config
from benchmarks.events import unseen_events
from benchmarks.measure import append_rows, describe_environment
from demo.scenes import make_event
from eval_metrics import binarize_anomaly_map, score_binary_map, threshold_curve
from evaluation.event_maps import CURVE_THRESHOLDS, EvalSettings
from evaluation.objects import average_precision
from img_io import open_event, open_label, read_window
from pipeline.filtered_map import filter_change_map
from rasters.raster import MemoryRaster
from sam.engine import SamEngine
from sam.features import WindowFeatures
from sam.flags import SamFlags
from sam.mask_generator import MaskParameters
from sam.masks import Mask
from sam.registry import SAM_VARIANTS
from sam.settings import load_engine
from stage1_analysis import change_map
from stage2_analysis import anomaly_map
from utils import Window, list_events

RESULTS = Path(__file__).parent / "results" / "switches.csv"
SHIFTS = (0, 2, 4, 8, 16)  # pixels, to the right and down
CLEANING = EvalSettings().cleaning


class Scene(NamedTuple):
    """An event as arrays of one window."""

    name: str
    historical: list[np.ndarray]  # (H, W, 3) uint8, oldest first
    monitor: np.ndarray
    label: np.ndarray  # (H, W) integer, above 1: anomaly


class Variant(NamedTuple):
    """A change of the method."""

    name: str
    plain: bool = False  # features without the encoder's last scale and shift
    tolerance: int = 0  # feature cells


VARIANTS = (
    Variant("published"),
    Variant("plain features", plain=True),
    Variant("tolerance 1", tolerance=1),
    Variant("tolerance 2", tolerance=2),
)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure two changes of the method.")
    parser.add_argument("--data-root", type=Path, help="folder with one folder per event (default: drawn events)")
    parser.add_argument("--drawn", type=int, default=10, help="number of drawn events (default: %(default)s)")
    parser.add_argument("--model", choices=SAM_VARIANTS, default="vit_t", help="SAM (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="weights (default: the official ones)")
    parser.add_argument("--points", type=int, default=16, help="points per side (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    return parser.parse_args()


def drawn_scenes(count: int) -> list[Scene]:
    """Draw events that were used for nothing else, with eight earlier dates."""
    scenes = []
    for event in unseen_events(2_000_001, count):
        drawn = make_event(event.seed, int(event.name[0]), 1024, 8)
        assert drawn.label is not None
        scenes.append(Scene(event.name, drawn.historical, drawn.monitor, drawn.label))
    return scenes


def read_scenes(data_root: Path) -> list[Scene]:
    """Read the events of a data root that have a label, up to 2048 x 2048 pixels of each."""
    scenes = []
    for event in list_events(data_root).events:
        if event.label is None:
            continue
        images = open_event(event)
        height, width = images.shape
        window = Window(0, 0, min(width, 2048), min(height, 2048))
        *historical, monitor = (read_window(image, window).rgb for image in (*images.historical, images.monitor))
        scenes.append(Scene(event.name, historical, monitor, open_label(event).read(window)))
    return scenes


def moved(values: np.ndarray, shift: int) -> np.ndarray:
    """Move an image to the right and down; its first rows and columns are repeated."""
    rows, columns = (np.maximum(np.arange(length) - shift, 0) for length in values.shape[:2])
    return values[np.ix_(rows, columns)]


def anomalies_with(
    variant: Variant, dates: Sequence[WindowFeatures], masks: tuple[list[Mask], list[Mask]]
) -> np.ndarray:
    """Return stage 2's map. `dates`: of the historical images and the monitor image. `masks`: of the last two."""
    *historical, monitor = dates
    changes = change_map(
        historical[-1],
        monitor,
        *masks,
        config.STAGE1_MIN_MASK_PIXELS,
        config.MAX_REGION_FRACTION,
        tolerance=variant.tolerance,
    )
    height, width = changes.shape
    filtered = filter_change_map(MemoryRaster(changes), config.STAGE2_CHANGE_MAP_QUANTILE)
    return anomaly_map(
        filtered.read(Window(0, 0, width, height)),
        historical,
        monitor,
        config.STAGE2_MIN_MASK_PIXELS,
        config.MAX_REGION_FRACTION,
        tolerance=variant.tolerance,
    )


def generate(engine: SamEngine, image: np.ndarray, points: int) -> list[Mask]:
    """Generate the masks of an image with stage 1's parameters."""
    parameters = MaskParameters.of(config.STAGE1_SAM_PARAMS | {"points_per_side": points})
    return engine.generator.generate(image, engine.encode([engine.scale(image)])[0], parameters).collect()


def measure(scene: Scene, engine: SamEngine, points: int) -> list[dict[str, str]]:
    """Return one row per variant and shift."""
    masks = [generate(engine, image, points) for image in (scene.historical[-1], scene.monitor)]
    size = scene.monitor.shape[:2]
    rows = []
    for shift in SHIFTS:
        images = [*(moved(image, shift) for image in scene.historical), scene.monitor]
        encoded = [engine.encode([engine.scale(image)])[0] for image in images]
        shifted = [Mask.of(moved(mask.full(size), shift)) for mask in masks[0]]
        for variant in VARIANTS:
            if variant.plain and shift:
                continue
            dates = [engine.without_affine(date) for date in encoded] if variant.plain else encoded
            anomalies = MemoryRaster(anomalies_with(variant, dates, (shifted, masks[1])))
            rows.append(
                {"event": scene.name, "variant": variant.name, "shift": str(shift)} | scores_of(anomalies, scene)
            )
    return rows


def scores_of(anomalies: MemoryRaster, scene: Scene) -> dict[str, str]:
    """Score an anomaly map."""
    label = MemoryRaster(scene.label)
    binary = binarize_anomaly_map(anomalies, config.EVAL_STAGE2_FIXED_THRESH, **CLEANING)
    weighted, plain = (
        score_binary_map(binary, anomalies, label, weight) for weight in (config.EVAL_BACKGROUND_WEIGHT, 1)
    )
    curve = threshold_curve(anomalies, label, CURVE_THRESHOLDS, **CLEANING).scores(1)
    return {
        "recall": f"{weighted.recall:.4f}",
        "precision": f"{weighted.precision:.4f}",
        "unweighted precision": f"{plain.precision:.4f}",
        "average precision": f"{average_precision(curve):.4f}",
        "flagged": f"{binary.read(Window(0, 0, *scene.label.shape[::-1])).mean():.4f}",
    }


def main() -> None:
    """Measure every event, append its rows."""
    args = parse_arguments()
    engine, _ = load_engine(SamFlags("cpu", args.checkpoint, args.model, "fp32", None, None, False))
    scenes = read_scenes(args.data_root) if args.data_root else drawn_scenes(args.drawn)
    described = describe_environment("cpu") | {
        "model": args.model,
        "points per side": str(args.points),
        "data": args.data_root.name if args.data_root else "drawn",
    }
    for scene in scenes:
        rows = measure(scene, engine, args.points)
        append_rows(args.results, [described | row for row in rows])
        for row in rows:
            print("  ".join(row.values()), flush=True)


if __name__ == "__main__":
    main()
