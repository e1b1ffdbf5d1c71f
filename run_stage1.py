"""Stage 1: from the reference and monitor image of every event to its continuous change map."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import config
from eval_metrics import binarize_by_quantile
from img_io import is_current, open_event, open_image, read_window, write_preview, write_raster
from raster_store import MemoryRaster
from sam_engine import MODEL_TYPES, SamEngine, load_engine
from stage1_analysis import change_map
from utils import (
    Event,
    add_data_arguments,
    add_sam_arguments,
    file_sizes,
    list_events,
    positive_int,
    run_events,
    run_script,
    tile,
)


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
    add_sam_arguments(parser, MODEL_TYPES)
    return parser.parse_args(arguments)


def process_event(
    event: Event, args: argparse.Namespace, engine: SamEngine, window_done: Callable[[], object]
) -> str | None:
    """Write the change map of one event and its preview; returns a reason where it is skipped."""
    folder = args.output_root / event.name
    parameters = engine.provenance | {
        "images": file_sizes([event.reference, event.monitor]),
        "patch_size": args.patch_size,
        "sam_params": config.STAGE1_SAM_PARAMS,
        "min_mask_pixels": config.STAGE1_MIN_MASK_PIXELS,
        "max_region_fraction": config.MAX_REGION_FRACTION,
    }
    reference, monitor = open_event([event.reference, event.monitor])
    if args.skip_existing and is_current(folder / config.CHANGE_MAP_NAME, reference.shape, parameters):
        return "its change map exists"
    changes = np.zeros(reference.shape, np.float32)
    for window in tile(*reference.shape, args.patch_size):
        before, after = read_window(reference, window), read_window(monitor, window)
        before_features, after_features = engine.encode(before), engine.encode(after)
        changes[window.slices] = change_map(
            before_features,
            after_features,
            engine.generate_masks(before, before_features, config.STAGE1_SAM_PARAMS),
            engine.generate_masks(after, after_features, config.STAGE1_SAM_PARAMS),
            config.STAGE1_MIN_MASK_PIXELS,
            config.MAX_REGION_FRACTION,
        )
        window_done()
    binary = binarize_by_quantile(MemoryRaster(changes), config.STAGE1_CHANGE_QUANTILE)
    write_preview(folder / config.CHANGE_PREVIEW_NAME, binary)
    write_raster(folder / config.CHANGE_MAP_NAME, changes, reference.georeference, parameters)
    return None


def main(arguments: Sequence[str] | None = None, engine: SamEngine | None = None) -> int:
    """Run stage 1; returns the exit code. `engine`: one that is loaded already, to be used instead of loading SAM."""
    args = parse_arguments(arguments)
    listing = list_events(args.data_root, args.event)
    sam = engine or load_engine(args.sam_model_type, args.sam_checkpoint, args.device)
    return run_events(
        "stage 1",
        listing,
        lambda event: len(tile(*open_image(event.reference).shape, args.patch_size)),
        lambda event, window_done: process_event(event, args, sam, window_done),
    ).exit_code


if __name__ == "__main__":
    run_script(main)
