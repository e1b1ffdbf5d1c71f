"""Stage 1: from the reference and monitor image of every event to its continuous change map."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import config
from engine_options import add_sam_arguments, load_engine
from eval_metrics import binarize_by_quantile
from event_lock import event_lock
from feature_cache import FeatureCache
from img_io import EventImages, ImageOptions, Pixels, event_shape, open_event, read_window, valid_in_all
from map_io import is_current, map_tags, write_preview, write_raster
from pipeline import BackgroundWriter, one_behind, read_ahead
from provenance import file_identities
from regions import WindowFeatures
from runs import add_log_argument, keep_log, run_events, run_script
from sam_engine import PendingMasks, SamEngine, ScaledImage
from stage1_analysis import change_map
from utils import Event, Window, add_data_arguments, add_image_arguments, list_events, positive_int, tile
from window_store import WindowStore


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument(
        "--output-root",
        type=Path,
        default=config.STAGE1_OUTPUT_DIR,
        help="folder for one output folder an event (default: %(default)s)",
    )
    parser.add_argument(
        "--patch-size",
        type=positive_int,
        default=config.STAGE1_PATCH_SIZE,
        help="side of a window in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-existing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave events alone whose change map is there, whole and made with the same parameters (default: skip)",
    )
    add_image_arguments(parser)
    add_sam_arguments(parser)
    add_log_argument(parser)
    return parser.parse_args(arguments)


class FoundMasks(NamedTuple):
    """The two images of a window, encoded, and their masks, which may still be cleaned on other threads."""

    valid: np.ndarray | None  # (H, W) bool, where both hold data; None: everywhere
    reference: WindowFeatures
    monitor: WindowFeatures
    reference_masks: PendingMasks
    monitor_masks: PendingMasks

    def score(self) -> np.ndarray:
        """The window's change map, (H, W) float32."""
        return change_map(
            self.reference,
            self.monitor,
            self.reference_masks.collect(),
            self.monitor_masks.collect(),
            config.STAGE1_MIN_MASK_PIXELS,
            config.MAX_REGION_FRACTION,
            self.valid,
        )


def process_event(
    event: Event,
    engine: SamEngine,
    folder: Path,
    options: ImageOptions,
    patch_size: int,
    skip_existing: bool,
    window_done: Callable[[], object],
    cache: FeatureCache | None = None,
) -> str | None:
    """Write the change map of one event and its preview; returns a reason where it is skipped.

    `folder`: for the event's outputs. `cache`: keeps the features of both images for stage 2.
    """
    path = folder / config.CHANGE_MAP_NAME
    images = open_event(event, options)
    parameters = (
        engine.provenance
        | images.parameters
        | {
            "images": file_identities([event.reference, event.monitor]),
            "patch_size": patch_size,
            "sam_params": config.STAGE1_SAM_PARAMS,
            "min_mask_pixels": config.STAGE1_MIN_MASK_PIXELS,
            "max_region_fraction": config.MAX_REGION_FRACTION,
        }
    )
    windows = tile(*images.shape, patch_size)
    with event_lock(folder):
        if skip_existing and is_current(path, images.shape, parameters):
            return "its change map exists"
        store = WindowStore(folder / f".{config.CHANGE_MAP_NAME}.windows", images.shape, windows, parameters)
        with store as changes:
            missing = [window for window in windows if window not in changes.finished]
            for _ in changes.finished:
                window_done()
            with BackgroundWriter(changes) as writer:
                for window, found in one_behind(find_masks(engine, images, missing, cache)):
                    no_data = np.full((window.height, window.width), np.nan, np.float32)
                    writer.write(window, no_data if found is None else found.score())
                    window_done()
            binary = binarize_by_quantile(changes, config.STAGE1_CHANGE_QUANTILE)
            write_preview(folder / config.CHANGE_PREVIEW_NAME, binary)
            tags = map_tags(parameters, engine.checkpoint)
            write_raster(path, changes, images.georeference, tags, "change score, 0 to 1")
    return None


def find_masks(
    engine: SamEngine, images: EventImages, windows: Sequence[Window], cache: FeatureCache | None
) -> Iterator[tuple[Window, FoundMasks | None]]:
    """Encode windows of reference and monitor image and start on their masks; None where neither can be scored."""
    pair = (images.reference, images.monitor)

    def read(window: Window) -> tuple[list[Pixels], np.ndarray | None, list[ScaledImage]]:
        pixels = [read_window(image, window) for image in pair]
        valid = valid_in_all(pixels)
        skipped = valid is not None and not valid.any()
        return pixels, valid, [] if skipped else [engine.scale(of_image.rgb) for of_image in pixels]

    for window, (pixels, valid, scaled) in read_ahead(read, windows):
        if not scaled:
            yield window, None
            continue
        features = engine.encode(scaled)
        if cache is not None:
            for image, of_image in zip(pair, features, strict=True):
                cache.keep(image.path, window, of_image)
        masks = [
            engine.generate_masks(of_image.rgb, its_features, config.STAGE1_SAM_PARAMS)
            for of_image, its_features in zip(pixels, features, strict=True)
        ]
        yield window, FoundMasks(valid, features[0], features[1], masks[0], masks[1])


def count_windows(event: Event, patch_size: int) -> int:
    """How many windows stage 1 takes an event in."""
    return len(tile(*event_shape(event), patch_size))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run stage 1; returns the exit code."""
    args = parse_arguments(arguments)
    with keep_log(args.log_file):
        listing = list_events(args.data_root, args.event)
        with load_engine(args) as engine:
            return run_events(
                "stage 1",
                listing,
                lambda event: count_windows(event, args.patch_size),
                lambda event, window_done: process_event(
                    event,
                    engine,
                    args.output_root / event.name,
                    ImageOptions.of(args),
                    args.patch_size,
                    args.skip_existing,
                    window_done,
                ),
            ).exit_code


if __name__ == "__main__":
    run_script(main)
