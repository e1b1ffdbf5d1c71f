"""Stage 2: from the change map and all historical images of every event to its anomaly map."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import config
from engine_options import add_sam_arguments, load_engine
from eval_metrics import binarize_anomaly_map
from feature_cache import FeatureCache
from gdal_files import Layer
from img_io import Image, open_event, open_image, read_window
from map_io import is_current, open_map, read_parameters, write_preview, write_raster
from pipeline import BackgroundWriter, read_ahead
from raster_store import RasterStore
from regions import WindowFeatures
from runs import run_events, run_script
from sam_engine import SamEngine, ScaledImage
from stage2_analysis import FilteredMap, anomaly_map, filter_change_map
from utils import LOG, Event, EventError, Window, add_data_arguments, file_sizes, list_events, tile


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
    add_sam_arguments(parser)
    return parser.parse_args(arguments)


def event_windows(shape: tuple[int, int]) -> list[Window]:
    """Stage 2's windows of an image of this height and width (docs/method.md, section 2)."""
    small = min(shape) < config.STAGE2_PATCH_SIZE
    return tile(*shape, config.STAGE2_SMALL_PATCH_SIZE if small else config.STAGE2_PATCH_SIZE)


def count_windows(event: Event) -> int:
    """How many windows stage 2 takes an event in."""
    return len(event_windows(open_image(event.monitor).shape))


def open_change_map(path: Path, event: Event, shape: tuple[int, int], engine: SamEngine) -> Layer:
    """Stage 1's change map of an event. Raises EventError where it is missing or belongs to other images."""
    if not path.exists():
        raise EventError(f"{path}: no stage 1 output for this event; run stage 1 first")
    changes = open_map(path)
    if changes.shape != shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (changes.shape, shape))
        raise EventError(f"{path} and {event.monitor}: sizes differ, {sizes}; run stage 1 again")
    recorded = read_parameters(path)
    if recorded is not None and not engine.provenance.items() <= recorded.items():
        LOG.warning("%s: was made with other SAM weights or precision than stage 2 runs with", path)
    return changes


def process_event(
    event: Event,
    engine: SamEngine,
    stage1_path: Path,
    folder: Path,
    skip_existing: bool,
    window_done: Callable[[], object],
    cache: FeatureCache | None = None,
) -> str | None:
    """Write the filtered change map, the anomaly map and its preview; returns a reason where the event is skipped.

    `stage1_path`: the event's change map. `folder`: for the event's outputs. `cache`: what stage 1 encoded just now.
    """
    images = open_event([*event.historical, event.monitor])
    shape = images[-1].shape
    stage1_map = open_change_map(stage1_path, event, shape, engine)
    parameters: dict[str, Any] = engine.provenance | {
        "images": file_sizes([*event.historical, event.monitor]),
        "stage1": read_parameters(stage1_path),
        "change_map_quantile": config.STAGE2_CHANGE_MAP_QUANTILE,
        "patch_sizes": [config.STAGE2_SMALL_PATCH_SIZE, config.STAGE2_PATCH_SIZE],
        "min_region_pixels": config.STAGE2_MIN_MASK_PIXELS,
        "max_region_fraction": config.MAX_REGION_FRACTION,
    }
    filtered_path, anomaly_path = folder / config.FILTERED_MAP_NAME, folder / config.ANOMALY_MAP_NAME
    if skip_existing and all(is_current(path, shape, parameters) for path in (filtered_path, anomaly_path)):
        return "its anomaly map exists"
    filtered = filter_change_map(stage1_map, config.STAGE2_CHANGE_MAP_QUANTILE)
    with RasterStore(folder.with_name(f".{folder.name}.{config.ANOMALY_MAP_NAME}.store"), shape) as anomalies:
        with BackgroundWriter(anomalies) as writer:
            for window, changes, features in encode_windows(engine, images, filtered, cache):
                writer.write(
                    window,
                    anomaly_map(
                        changes,
                        features[:-1],
                        features[-1],
                        config.STAGE2_MIN_MASK_PIXELS,
                        config.MAX_REGION_FRACTION,
                    ),
                )
                window_done()
        binary = binarize_anomaly_map(
            anomalies,
            config.EVAL_STAGE2_FIXED_THRESH,
            config.EVAL_AREA_RATIO,
            config.EVAL_CLOSING_SIZE,
            config.EVAL_CLOSING_RADIUS,
        )
        write_preview(folder / config.ANOMALY_PREVIEW_NAME, binary)
        georeference = open_image(event.reference).georeference
        write_raster(filtered_path, filtered, georeference, parameters)
        write_raster(anomaly_path, anomalies, georeference, parameters)
    return None


class EncodedWindow(NamedTuple):
    """What scoring a window takes."""

    window: Window
    changes: np.ndarray  # (h, w) float32, of the filtered change map
    features: list[WindowFeatures]  # of all dates, the monitor image last


def encode_windows(
    engine: SamEngine, images: list[Image], filtered: FilteredMap, cache: FeatureCache | None
) -> Iterator[EncodedWindow]:
    """Encode every window of all dates, but for what the cache has."""

    def is_kept(image: Image, window: Window) -> bool:
        return cache is not None and cache.has(image.path, window)

    def read(window: Window) -> tuple[np.ndarray, list[ScaledImage]]:
        missing = [image for image in images if not is_kept(image, window)]
        return filtered.read(window), [engine.scale(read_window(image, window)) for image in missing]

    for window, (changes, scaled) in read_ahead(read, event_windows(images[-1].shape)):
        encoded = iter(engine.encode(scaled))
        features = [
            cache.get(image.path, window, engine.device)
            if cache is not None and is_kept(image, window)
            else next(encoded)
            for image in images
        ]
        yield EncodedWindow(window, changes, features)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run stage 2; returns the exit code."""
    args = parse_arguments(arguments)
    listing = list_events(args.data_root, args.event)
    engine = load_engine(args)
    return run_events(
        "stage 2",
        listing,
        count_windows,
        lambda event, window_done: process_event(
            event,
            engine,
            args.stage1_root / event.name / config.CHANGE_MAP_NAME,
            args.output_root / event.name,
            args.skip_existing,
            window_done,
        ),
    ).exit_code


if __name__ == "__main__":
    run_script(main)
