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
from typing import TYPE_CHECKING

from cli.flags import ScriptParser, add_data_arguments, add_image_arguments
from cli.process import prepare_process
from runs.flags import image_options
from sam.flags import SamFlags, add_sam_arguments

# Modules that need the packages of `check_packages` are imported after that check.
if TYPE_CHECKING:
    from anomalycd import AnomalyCD
    from img_io import EventImages, ImageOptions, Pixels
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


def load_model(args: argparse.Namespace) -> "AnomalyCD":
    """Load SAM. Raises SetupError if the file has the name of a published one but other content."""
    from anomalycd import AnomalyCD
    from sam.registry import SAM_VARIANTS

    model = AnomalyCD(**SamFlags.of(args)._asdict())
    path, checksum, _ = model.settings.weights
    print(f"weights {path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {checksum}")
    variant = SAM_VARIANTS[args.sam_model_type]
    if variant.published is not None and path.name == variant.weights and checksum != variant.published.sha256:
        raise SetupError(f"{path}: not the official file of this name; delete it so that it is downloaded again")
    return model


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


def check_window(event: "Event", model: "AnomalyCD", options: "ImageOptions") -> None:
    """Run both stages on the first window with data. Raises SetupError if a score is invalid."""
    import numpy as np

    from img_io import open_event, valid_in_all

    window, pixels = first_window_with_data(open_event(event, options))
    print(
        f"event {event.name}: {len(event.historical)} historical images, {'a' if event.label else 'no'} label; "
        f"window of {window.width} x {window.height} pixels at column {window.x}, row {window.y}"
    )
    *historical, monitor = (date.rgb for date in pixels)
    changes = model.change(historical[-1], monitor, valid_in_all(pixels[-2:]))
    anomalies = model.anomaly(historical, monitor, changes, [date.valid for date in pixels[:-1]])
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
        model = load_model(args)
        with tempfile.TemporaryDirectory() as scratch:
            check_window(find_event(args, Path(scratch)), model, image_options(args))
    except (SetupError, AnomalyCDError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("QUICK TEST PASSED")
    return 0


if __name__ == "__main__":
    sys.exit(main())
