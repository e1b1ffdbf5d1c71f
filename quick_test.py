"""Checks a set-up: packages, device, weights, data, and one 1024-pixel window through both stages."""

import argparse
import importlib
import importlib.metadata
import logging
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.flags import ScriptParser, add_data_arguments, add_image_arguments
from cli.process import prepare_process
from runs.flags import image_options
from sam.flags import SamFlags, add_sam_arguments

# Modules that need the packages of `check_packages` are imported after that check.
if TYPE_CHECKING:
    import numpy as np

    from img_io import EventImages, ImageOptions, Pixels
    from sam.engine import SamEngine
    from sam.features import WindowFeatures
    from sam.masks import Mask
    from utils import Event, Window

WINDOW_SIZE = 1024
REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"
IMPORT_NAMES = {
    "segment-anything": "segment_anything",
    "opencv-python": "cv2",
    "scikit-learn": "sklearn",
    "scikit-image": "skimage",
    "GDAL": "osgeo.gdal_array",  # missing if GDAL was built without NumPy
}


class SetupError(Exception):
    """A part of the set-up is missing or unusable; the message says what to do."""


def check_packages() -> list[str]:
    """Return the version of every required package. Raises SetupError for the first one that is missing or too old."""
    versions = [f"Python {platform.python_version()}"]
    for name, minimum in re.findall(r"^([\w-]+)>=([\d.]+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE):
        try:
            importlib.import_module(IMPORT_NAMES.get(name, name))
            version = importlib.metadata.version(name)
        except ImportError as error:
            raise SetupError(f"{name} cannot be imported ({error}): run `make setup`, use .venv/bin/python") from None
        if _numbers(version) < _numbers(minimum):
            raise SetupError(f"{name} {version} is too old, {minimum} or newer is needed: run `make setup`")
        versions.append(f"{name} {version}")
    return versions


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(description=__doc__)
    add_data_arguments(parser)
    add_image_arguments(parser)
    add_sam_arguments(parser)
    return parser.parse_args(arguments)


def check_weights(args: argparse.Namespace) -> "SamEngine":
    """Load SAM. Raises SetupError if the file has the name of a published one but other content."""
    from sam.registry import SAM_VARIANTS
    from sam.settings import load_engine
    from sam.weights import default_checkpoint

    engine, sam = load_engine(SamFlags.of(args))
    path = args.sam_checkpoint or default_checkpoint(args.sam_model_type)
    checksum = sam.provenance["sam_checkpoint_sha256"]
    print(f"weights {path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {checksum}")
    variant = SAM_VARIANTS[args.sam_model_type]
    if variant.published is not None and path.name == variant.weights and checksum != variant.published.sha256:
        raise SetupError(
            f"{path}: not the file that Meta publishes under this name; delete it so that it is downloaded again"
        )
    return engine


def find_event(args: argparse.Namespace, scratch: Path) -> "Event":
    """Return the event given by --event, else the data root's first one, else a generated demo event.

    The latter only if the default data root has none. Raises SetupError if no event folder is usable, UsageError if a
    data root that was named has none, or if the given event is unknown.
    """
    import config
    from demo.make_events import DEMO_EVENTS, write_event
    from utils import UsageError, list_events, read_event

    try:
        listing = list_events(args.data_root, args.event)
    except UsageError as error:
        is_named = args.data_root != config.DEFAULT_DATA_ROOT or "DEFAULT_DATA_ROOT" in config.OVERRIDDEN
        if args.event is not None or is_named:
            raise
        print(f"no data ({error}); GDL is available on request; using a generated demo event")
        return read_event(write_event(scratch, DEMO_EVENTS[-1]))
    if not listing.events:
        name, reason = listing.skipped[0]
        raise SetupError(f"{args.data_root / name}: {reason}")
    print(f"data {args.data_root}: {len(listing.events)} events, {len(listing.skipped)} unusable folders")
    return listing.events[0]


def first_window_with_data(images: "EventImages") -> tuple["Window", list["Pixels"]]:
    """Return the first window in which a pixel holds data in all dates, and the pixels of all dates in it.

    Raises SetupError if there is no such window.
    """
    from img_io import read_window, valid_in_all
    from utils import tile

    for window in tile(*images.shape, WINDOW_SIZE):
        pixels = [read_window(image, window) for image in (*images.historical, images.monitor)]
        valid = valid_in_all(pixels)
        if valid is None or valid.any():
            return window, pixels
    raise SetupError(f"{images.reference.path}: no pixel holds data in all dates of this event")


class WindowResult(NamedTuple):
    """What the method makes of a window of (H, W) pixels."""

    masks: "list[list[Mask]]"  # of the reference and of the monitor image
    features: "list[WindowFeatures]"  # of all dates, oldest first
    changes: "np.ndarray"  # (H, W) float32, 0 to 1, NaN where the reference or the monitor image holds no data
    anomalies: "np.ndarray"  # (H, W) float32, 0 to 2, NaN likewise


def run_window(pixels: "Sequence[Pixels]", engine: "SamEngine") -> WindowResult:
    """Compute both stages on one window with the published settings: the method on one screen.

    `pixels`: the window in all dates, oldest first; the last two are the reference and the monitor image. If an image
    has several windows, the quantile of stage 2 is that of the whole change map (docs/method.md, section 4).
    """
    import config
    from img_io import valid_in_all
    from pipeline.filtered_map import filter_change_map
    from rasters.raster import MemoryRaster
    from sam.mask_generator import MaskParameters
    from stage1_analysis import change_map
    from stage2_analysis import anomaly_map
    from utils import Window

    # SAM encodes each date once; its masks of the reference and the monitor image outline the objects of stage 1.
    features = engine.encode([engine.scale(of_date.rgb) for of_date in pixels])
    parameters = MaskParameters.of(config.STAGE1_SAM_PARAMS)
    masks = [engine.generator.generate(pixels[date].rgb, features[date], parameters).collect() for date in (-2, -1)]

    # Stage 1: how much the features of each object differ between the reference and the monitor image.
    reference, monitor = features[-2:]
    changes = change_map(
        reference,
        monitor,
        masks[0],
        masks[1],
        config.STAGE1_MIN_MASK_PIXELS,
        config.MAX_REGION_FRACTION,
        valid_in_all(pixels[-2:]),
    )

    # Stage 2: of the most changed regions, how little the monitor image resembles any historical date.
    height, width = changes.shape
    filtered = filter_change_map(MemoryRaster(changes), config.STAGE2_CHANGE_MAP_QUANTILE)
    anomalies = anomaly_map(
        filtered.read(Window(0, 0, width, height)),
        features[:-1],
        monitor,
        config.STAGE2_MIN_MASK_PIXELS,
        config.MAX_REGION_FRACTION,
    )
    return WindowResult(masks, features, changes, anomalies)


def check_window(event: "Event", engine: "SamEngine", options: "ImageOptions") -> None:
    """Run both stages on the first window with data. Raises SetupError if a score is invalid."""
    import numpy as np

    from img_io import open_event

    window, pixels = first_window_with_data(open_event(event, options))
    print(
        f"event {event.name}: {len(event.historical)} historical images, {'a' if event.label else 'no'} label; "
        f"window of {window.width} x {window.height} pixels at column {window.x}, row {window.y}"
    )
    masks, features, changes, anomalies = run_window(pixels, engine)
    print(f"masks: {len(masks[0])} of the reference image, {len(masks[1])} of the monitor image")
    print(f"features {tuple(features[-1].embedding.shape)} on {features[-1].embedding.device}")
    for name, scores in (("change map", changes), ("anomaly map", anomalies)):
        low, high = np.nanmin(scores), np.nanmax(scores)
        print(f"{name} {scores.shape} {scores.dtype}, {low:.4f} to {high:.4f}")
        if not (low >= -1e-6 and high <= 2 and np.isnan(scores).sum() == np.isnan(changes).sum()):
            raise SetupError(f"the {name} contains invalid scores; report this with the lines above")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks; returns the exit code, 0 if everything works, else 1."""
    args = parse_arguments(arguments)
    prepare_process()
    try:
        versions = check_packages()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    import config
    from utils import AnomalyCDError

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    print("\n".join(versions))
    for name, value in config.OVERRIDDEN.items():
        print(f"config: {name}={value} from the environment")
    try:
        importlib.import_module("rasters.geotiff")  # checks PROJ
        engine = check_weights(args)
        with tempfile.TemporaryDirectory() as scratch:
            check_window(find_event(args, Path(scratch)), engine, image_options(args))
    except (SetupError, AnomalyCDError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("QUICK TEST PASSED")
    return 0


if __name__ == "__main__":
    sys.exit(main())
