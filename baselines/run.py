"""Other change detection methods: their maps of every event, in the layout of stage 2 (docs/baselines.md)."""

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import config
from cli.flags import ScriptParser, add_data_arguments, add_image_arguments, add_log_argument
from cli.script import keep_log, run_script
from runs.flags import image_options
from sam.flags import SamFlags, add_sam_arguments
from utils import Event, list_events

if TYPE_CHECKING:
    from baselines.dates import Scored
    from img_io import EventImages, ImageOptions
    from sam.engine import SamEngine
    from sam.weights import SamIdentity

METHODS = {
    "cva": "change vector analysis, Otsu's threshold",
    "min-over-dates": "its shortest vector over all historical dates",
    "ir-mad": "iteratively reweighted multivariate alteration detection",
    "pca-kmeans": "PCA and k-means of the difference image's neighbourhoods",
    "anychange": "AnyChange's matching of SAM's masks",
}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(prog="python -m baselines.run", description=__doc__)
    described = "; ".join(f"{name}: {text}" for name, text in METHODS.items())
    parser.add_argument("method", choices=METHODS, metavar="METHOD", help=described)
    add_data_arguments(parser)
    parser.add_argument(
        "--result-root",
        type=Path,
        help=f"folder for one output folder per event (default: {config.DEFAULT_OUTPUT_ROOT}/METHOD)",
    )
    add_image_arguments(parser)
    add_sam_arguments(parser)
    add_log_argument(parser)
    args = parser.parse_args(arguments)
    args.result_root = args.result_root or config.DEFAULT_OUTPUT_ROOT / args.method
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a method over every event; returns the exit code. Events with current maps are skipped."""
    args = parse_arguments(arguments)
    # These load GDAL.
    from cli.progress import run_events
    from sam.devices import resolve_device
    from sam.settings import engine_settings

    with keep_log(args.log_file):
        listing = list_events(args.data_root, args.event)
        identity, load_engine = None, None
        if args.method == "anychange":
            settings = engine_settings(SamFlags.of(args), resolve_device(args.device))
            identity, load_engine = settings.identity, cache(settings.load)

        def process(event: Event, _: Callable[..., object]) -> str | None:
            return write_maps(
                args.method, event, args.result_root / event.name, image_options(args), identity, load_engine
            )

        return run_events(args.method, listing, lambda event: 1, process, unit="event").exit_code


def write_maps(
    method: str,
    event: Event,
    folder: Path,
    options: "ImageOptions",
    identity: "SamIdentity | None" = None,
    load_engine: "Callable[[], SamEngine] | None" = None,
) -> str | None:
    """Write a method's maps of an event; returns why it is skipped, if it is.

    `identity`, `load_engine`: for AnyChange. Raises EventError if a file is unusable.
    """
    from cli.provenance import file_identities
    from img_io import open_event
    from rasters.cog import write_raster
    from rasters.maps import MapState, map_state, map_tags

    images = open_event(event, options)
    identities = {"images": file_identities([*event.historical, event.monitor])}
    parameters = {"method": method} | images.parameters | identities
    if identity:
        masks = {"patch_size": config.STAGE1_PATCH_SIZE, "points_per_side": config.STAGE1_SAM_PARAMS["points_per_side"]}
        parameters |= identity.provenance | masks
    paths = [folder / name for name in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME)]
    if all(map_state(path, images.shape, parameters) is MapState.CURRENT for path in paths):
        return "its maps exist"
    tags = map_tags(parameters, identity.checkpoint if identity else "none")
    with TemporaryDirectory() as scratch:
        engine = load_engine() if load_engine else None
        for path, scores in zip(paths, compute(method, images, engine, Path(scratch)), strict=True):
            write_raster(path, scores, images.georeference, tags, [f"{method} score, 0 to 1; 0.5 is its threshold"])
    return None


def compute(method: str, images: "EventImages", engine: "SamEngine | None", scratch: Path) -> "tuple[Scored, Scored]":
    """Return a method's scores in place of stage 1 and of stage 2; they differ for methods that use all dates."""
    from baselines.change_vectors import change_vectors
    from baselines.ir_mad import ir_mad
    from baselines.pca_kmeans import pca_kmeans

    reference, monitor = images.reference, images.monitor
    if method == "min-over-dates":
        return change_vectors([reference], monitor), change_vectors(images.historical, monitor)
    if method == "anychange":
        from baselines.any_change import any_change

        assert engine is not None
        scores = any_change(images, engine, scratch / "angles")
    elif method == "cva":
        scores = change_vectors([reference], monitor)
    else:
        scores = {"ir-mad": ir_mad, "pca-kmeans": pca_kmeans}[method](reference, monitor)
    return scores, scores


if __name__ == "__main__":
    run_script(main)
