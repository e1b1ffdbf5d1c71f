"""Stage 2: from the change map and all historical images of every event to its anomaly map."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import config
from eval_metrics import binarize_anomaly_map
from img_io import (
    is_current,
    open_event,
    open_image,
    open_map,
    read_parameters,
    read_window,
    write_preview,
    write_raster,
)
from raster_store import MemoryRaster
from sam_engine import MODEL_TYPES, SamEngine, load_engine
from stage2_analysis import anomaly_map, filter_change_map
from utils import (
    LOG,
    Event,
    EventError,
    Window,
    add_data_arguments,
    add_sam_arguments,
    file_sizes,
    list_events,
    run_events,
    run_script,
    tile,
)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument(
        "--stage1-root",
        type=Path,
        default=config.STAGE1_OUTPUT_DIR,
        help="where stage 1 wrote its change maps (default: %(default)s)",
    )
    parser.add_argument(
        "--output-root",
        type=Path,
        default=config.STAGE2_OUTPUT_DIR,
        help="folder for one output folder an event (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave events alone whose maps are there, whole and made with the same parameters (default: recompute)",
    )
    add_sam_arguments(parser, MODEL_TYPES)
    return parser.parse_args(arguments)


def event_windows(shape: tuple[int, int]) -> list[Window]:
    """Stage 2's windows of an image of this height and width (docs/method.md, section 2)."""
    small = min(shape) < config.STAGE2_PATCH_SIZE
    return tile(*shape, config.STAGE2_SMALL_PATCH_SIZE if small else config.STAGE2_PATCH_SIZE)


def read_change_map(path: Path, event: Event, shape: tuple[int, int], engine: SamEngine) -> np.ndarray:
    """Stage 1's change map of an event. Raises EventError where it is missing or belongs to other images."""
    if not path.exists():
        raise EventError(f"{path}: no stage 1 output for this event; run stage 1 first")
    changes = open_map(path)
    if changes.shape != shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (changes.shape, shape))
        raise EventError(f"{path} and {event.monitor}: sizes differ, {sizes}; run stage 1 again")
    recorded = read_parameters(path)
    if recorded is not None and not engine.provenance.items() <= recorded.items():
        LOG.warning("%s: was made with other SAM weights than stage 2 runs with", path)
    return changes.read(Window(0, 0, shape[1], shape[0]))


def process_event(
    event: Event, args: argparse.Namespace, engine: SamEngine, window_done: Callable[[], object]
) -> str | None:
    """Write the filtered change map, the anomaly map and its preview; returns a reason where the event is skipped."""
    folder = args.output_root / event.name
    stage1_path = args.stage1_root / event.name / config.CHANGE_MAP_NAME
    *historical, monitor = open_event([*event.historical, event.monitor])
    changes = read_change_map(stage1_path, event, monitor.shape, engine)
    parameters: dict[str, Any] = engine.provenance | {
        "images": file_sizes([*event.historical, event.monitor]),
        "stage1": read_parameters(stage1_path),
        "change_map_quantile": config.STAGE2_CHANGE_MAP_QUANTILE,
        "patch_sizes": [config.STAGE2_SMALL_PATCH_SIZE, config.STAGE2_PATCH_SIZE],
        "min_region_pixels": config.STAGE2_MIN_MASK_PIXELS,
        "max_region_fraction": config.MAX_REGION_FRACTION,
    }
    outputs = [folder / name for name in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME)]
    if args.skip_existing and all(is_current(path, monitor.shape, parameters) for path in outputs):
        return "its anomaly map exists"
    filtered = filter_change_map(changes, config.STAGE2_CHANGE_MAP_QUANTILE)
    anomalies = np.zeros(monitor.shape, np.float32)
    for window in event_windows(monitor.shape):
        features = [engine.encode(read_window(image, window)) for image in (*historical, monitor)]
        anomalies[window.slices] = anomaly_map(
            filtered[window.slices],
            features[:-1],
            features[-1],
            config.STAGE2_MIN_MASK_PIXELS,
            config.MAX_REGION_FRACTION,
        )
        window_done()
    binary = binarize_anomaly_map(
        MemoryRaster(anomalies),
        config.EVAL_STAGE2_FIXED_THRESH,
        config.EVAL_AREA_RATIO,
        config.EVAL_CLOSING_SIZE,
        config.EVAL_CLOSING_RADIUS,
    )
    write_preview(folder / config.ANOMALY_PREVIEW_NAME, binary)
    for path, values in zip(outputs, (filtered, anomalies), strict=True):
        write_raster(path, values, historical[-1].georeference, parameters)
    return None


def main(arguments: Sequence[str] | None = None, engine: SamEngine | None = None) -> int:
    """Run stage 2; returns the exit code. `engine`: one that is loaded already, to be used instead of loading SAM."""
    args = parse_arguments(arguments)
    listing = list_events(args.data_root, args.event)
    sam = engine or load_engine(args.sam_model_type, args.sam_checkpoint, args.device)
    return run_events(
        "stage 2",
        listing,
        lambda event: len(event_windows(open_image(event.monitor).shape)),
        lambda event, window_done: process_event(event, args, sam, window_done),
    ).exit_code


if __name__ == "__main__":
    run_script(main)
