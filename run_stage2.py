"""Stage 2: from the change map and all historical images of every event to its anomaly map."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import config
from engine_options import add_sam_arguments, load_engine
from eval_metrics import binarize_anomaly_map
from event_lock import event_lock
from feature_cache import FeatureCache
from gdal_files import Georeference, Layer
from img_io import EventImages, ImageOptions, event_shape, open_event, read_window, valid_in_all
from map_io import is_current, map_tags, open_map, read_parameters, write_preview, write_raster
from pipeline import BackgroundWriter, read_ahead
from provenance import file_identities
from raster_store import Raster, RasterStore, bands
from region_polygons import find_regions, regions_are_whole, write_regions
from regions import WindowFeatures
from runs import add_log_argument, keep_log, run_events, run_script
from sam_engine import SamEngine, ScaledImage
from stage2_analysis import FilteredMap, anomaly_map, filter_change_map
from utils import CATEGORIES, LOG, Event, EventError, Window, add_data_arguments, add_image_arguments, list_events, tile
from window_store import WindowStore


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
    add_image_arguments(parser)
    add_sam_arguments(parser)
    add_log_argument(parser)
    return parser.parse_args(arguments)


def event_windows(shape: tuple[int, int]) -> list[Window]:
    """Stage 2's windows of an image of this height and width (docs/method.md, section 2)."""
    small = min(shape) < config.STAGE2_PATCH_SIZE
    return tile(*shape, config.STAGE2_SMALL_PATCH_SIZE if small else config.STAGE2_PATCH_SIZE)


def count_windows(event: Event) -> int:
    """How many windows stage 2 takes an event in."""
    return len(event_windows(event_shape(event)))


def open_change_map(path: Path, event: Event, shape: tuple[int, int], made_with: dict[str, Any]) -> Layer:
    """Stage 1's change map of an event. Raises EventError where it is missing or belongs to other images.

    `made_with`: what stage 2 runs with; where stage 1 ran with something else, a warning says so.
    """
    if not path.exists():
        raise EventError(f"{path}: no stage 1 output for this event; run stage 1 first")
    changes = open_map(path)
    if changes.shape != shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (changes.shape, shape))
        raise EventError(f"{path} and {event.monitor}: sizes differ, {sizes}; run stage 1 again")
    recorded = read_parameters(path)
    other = sorted(key for key, value in made_with.items() if recorded is not None and recorded.get(key) != value)
    if other:
        LOG.warning("%s: was made with another %s than stage 2 runs with", path, ", ".join(other))
    return changes


def process_event(
    event: Event,
    engine: SamEngine,
    stage1_path: Path,
    folder: Path,
    options: ImageOptions,
    skip_existing: bool,
    window_done: Callable[[], object],
    cache: FeatureCache | None = None,
) -> str | None:
    """Write the filtered change map, the anomaly map and its preview; returns a reason where the event is skipped.

    `stage1_path`: the event's change map. `folder`: for the event's outputs. `cache`: what stage 1 encoded just now.
    """
    images = open_event(event, options)
    made_with = engine.provenance | images.parameters
    stage1_map = open_change_map(stage1_path, event, images.shape, made_with)
    parameters: dict[str, Any] = made_with | {
        "images": file_identities([*event.historical, event.monitor]),
        "stage1": read_parameters(stage1_path),
        "change_map_quantile": config.STAGE2_CHANGE_MAP_QUANTILE,
        "patch_sizes": [config.STAGE2_SMALL_PATCH_SIZE, config.STAGE2_PATCH_SIZE],
        "min_region_pixels": config.STAGE2_MIN_MASK_PIXELS,
        "max_region_fraction": config.MAX_REGION_FRACTION,
    }
    filtered_path, anomaly_path = folder / config.FILTERED_MAP_NAME, folder / config.ANOMALY_MAP_NAME
    windows = event_windows(images.shape)
    with event_lock(folder):
        maps = (filtered_path, anomaly_path)
        if skip_existing and all(is_current(path, images.shape, parameters) for path in maps):
            if not (
                (folder / config.ANOMALY_PREVIEW_NAME).exists() and regions_are_whole(folder / config.REGIONS_NAME)
            ):
                write_result(folder, event, open_map(anomaly_path), images.georeference)
            return "its anomaly map exists"
        with (
            changes_with_data(stage1_map, images, folder / f".{config.FILTERED_MAP_NAME}.changes") as changes,
            WindowStore(folder / f".{config.ANOMALY_MAP_NAME}.windows", images.shape, windows, parameters) as anomalies,
        ):
            filtered = filter_change_map(changes, config.STAGE2_CHANGE_MAP_QUANTILE)
            missing = [window for window in windows if window not in anomalies.finished]
            for _ in anomalies.finished:
                window_done()
            with BackgroundWriter(anomalies) as writer:
                for window, changes_there, features in encode_windows(engine, images, missing, filtered, cache):
                    writer.write(window, score_window(changes_there, features))
                    window_done()
            write_result(folder, event, anomalies, images.georeference)
            tags = map_tags(parameters, engine.checkpoint)
            write_raster(filtered_path, filtered, images.georeference, tags, "change score, 0 to 1, filtered")
            write_raster(anomaly_path, anomalies, images.georeference, tags, "anomaly score, 0 to 2")
    return None


def write_result(folder: Path, event: Event, anomalies: Raster, georeference: Georeference) -> None:
    """Write the binary map of an event: its preview, and its regions as polygons."""
    binary = binarize_anomaly_map(
        anomalies,
        config.EVAL_STAGE2_FIXED_THRESH,
        config.EVAL_AREA_RATIO,
        config.EVAL_CLOSING_SIZE,
        config.EVAL_CLOSING_RADIUS,
    )
    write_preview(folder / config.ANOMALY_PREVIEW_NAME, binary)
    name, _ = CATEGORIES[event.category]
    attributes = {"event": event.name, "category": f"{event.category} {name}"}
    write_regions(folder / config.REGIONS_NAME, find_regions(binary, anomalies, georeference), attributes)


@contextmanager
def changes_with_data(changes: Raster, images: EventImages, path: Path) -> Iterator[Raster]:
    """A change map that is NaN wherever a date holds no data; where any can lack some, in a file at `path`."""
    dates = [image for image in (*images.historical, images.monitor) if image.may_lack_data]
    if not dates:
        yield changes
        return
    with RasterStore(path, changes.shape) as combined:
        for window in bands(changes.shape):
            values = changes.read(window)
            valid = valid_in_all(read_window(image, window) for image in dates)
            combined.write(window, values if valid is None else np.where(valid, values, np.float32(np.nan)))
        yield combined


class EncodedWindow(NamedTuple):
    """What scoring a window takes."""

    window: Window
    changes: np.ndarray  # (h, w) float32, of the filtered change map
    features: list[WindowFeatures]  # of all dates, the monitor image last; none where no pixel holds data


def score_window(changes: np.ndarray, features: list[WindowFeatures]) -> np.ndarray:
    """The anomaly map of a window, (H, W) float32."""
    if not features:
        return changes
    return anomaly_map(changes, features[:-1], features[-1], config.STAGE2_MIN_MASK_PIXELS, config.MAX_REGION_FRACTION)


def encode_windows(
    engine: SamEngine,
    images: EventImages,
    windows: Sequence[Window],
    filtered: FilteredMap,
    cache: FeatureCache | None,
) -> Iterator[EncodedWindow]:
    """Encode windows of all dates, but for what the cache has.

    Reference and monitor image are encoded together, as stage 1 does it: with what stage 1 kept or without, batches,
    and with them the last bits, are the same.
    """
    older, pair = images.historical[:-1], (images.reference, images.monitor)

    def is_kept(window: Window) -> bool:
        return cache is not None and all(cache.has(image.path, window) for image in pair)

    def read(window: Window) -> tuple[np.ndarray, list[list[ScaledImage]]]:
        changes = filtered.read(window)
        if np.isnan(changes).all():
            return changes, []
        groups = [older] if is_kept(window) else [older, pair]
        return changes, [[engine.scale(read_window(image, window).rgb) for image in dates] for dates in groups]

    for window, (changes, groups) in read_ahead(read, windows):
        features = [of_image for scaled in groups if scaled for of_image in engine.encode(scaled)]
        if cache is not None and groups and is_kept(window):
            features += [cache.get(image.path, window, engine.device) for image in pair]
        yield EncodedWindow(window, changes, features)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run stage 2; returns the exit code."""
    args = parse_arguments(arguments)
    with keep_log(args.log_file):
        listing = list_events(args.data_root, args.event)
        with load_engine(args) as engine:
            return run_events(
                "stage 2",
                listing,
                count_windows,
                lambda event, window_done: process_event(
                    event,
                    engine,
                    args.stage1_root / event.name / config.CHANGE_MAP_NAME,
                    args.output_root / event.name,
                    ImageOptions.of(args),
                    args.skip_existing,
                    window_done,
                ),
            ).exit_code


if __name__ == "__main__":
    run_script(main)
