"""All paths, thresholds and defaults of AnomalyCD, with the published values.

Section numbers refer to docs/method.md. The environment variable ``ANOMALYCD_<NAME>`` overrides a setting that
docs/settings.md marks as overridable (numbers as numbers, parameter tables as JSON that is merged into the default).
Every run prints the overridden settings, because a changed threshold is no longer the published method.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

VERSION = "0.2.0"
# Installed by pip, this is a module of the package `anomalycd`, beside which no data, weights and outputs belong.
_IS_INSTALLED = bool(__package__)
PROJECT_ROOT = Path.cwd() if _IS_INSTALLED else Path(__file__).resolve().parent

# Settings overridden by the environment, name to text: {"STAGE1_PATCH_SIZE": "1024"}.
OVERRIDDEN: dict[str, str] = {}

Value = TypeVar("Value")


def _in_usual_range(value: Any) -> bool:
    """Return whether integers, which are sizes or counts, are above 0, and floats, fractions or scores, in [0, 1]."""
    if isinstance(value, float):
        return 0 <= value <= 1
    return not isinstance(value, int) or value > 0


def _is_not_negative(value: float) -> bool:
    return 0 <= value < float("inf")


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _setting(
    name: str, default: Value, parse: Callable[[str], Value], is_valid: Callable[[Value], bool] = _in_usual_range
) -> Value:
    text = os.environ.get(f"ANOMALYCD_{name}")
    if not text:
        return default
    try:
        value = parse(text)
        if not is_valid(value):
            raise ValueError(text)
    except ValueError:
        _refuse(f"ANOMALYCD_{name}={text!r} is no valid {type(default).__name__} here; unset it")
    OVERRIDDEN[name] = text
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return parse


def _path(name: str, default: Path) -> Path:
    return _setting(name, default, lambda text: Path(text).expanduser().absolute())


def _parameters(name: str, default: dict[str, Any]) -> dict[str, Any]:
    def parse(text: str) -> dict[str, Any]:
        changes = json.loads(text)
        if not isinstance(changes, dict):
            raise ValueError(text)
        return default | changes

    return _setting(name, default, parse)


# --- Paths -----------------------------------------------------------------------------------------------------------
WEIGHTS_DIR = _path("WEIGHTS_DIR", Path.home() / ".cache" / "anomalycd" if _IS_INSTALLED else PROJECT_ROOT / "weights")
SAM_CHECKPOINT = _path("SAM_CHECKPOINT", WEIGHTS_DIR / "sam_vit_b_01ec64.pth")
SAM_MODEL_TYPE = _setting("SAM_MODEL_TYPE", "vit_b", str)
DEMO_CHECKPOINT = PROJECT_ROOT / "tests" / "toy_sam" / "sam_vit_demo.pth"
DEFAULT_DATA_ROOT = _path("DEFAULT_DATA_ROOT", PROJECT_ROOT / "data" / "GDL")
DEFAULT_OUTPUT_ROOT = _path("DEFAULT_OUTPUT_ROOT", PROJECT_ROOT / "outputs")
STAGE1_OUTPUT_DIR = _path("STAGE1_OUTPUT_DIR", DEFAULT_OUTPUT_ROOT / "stage1_change_detection")
STAGE2_OUTPUT_DIR = _path("STAGE2_OUTPUT_DIR", DEFAULT_OUTPUT_ROOT / "stage2_anomaly_change")
CATALOG_DATA_ROOT = _path("CATALOG_DATA_ROOT", PROJECT_ROOT / "data" / "my_events")
REPORT_OUTPUT_DIR = _path("REPORT_OUTPUT_DIR", DEFAULT_OUTPUT_ROOT / "report")

EVENT_RECORD_NAME = "event.json"  # in the folder of an event from a catalog

# Files of an event's output folder.
CHANGE_MAP_NAME = "change_map_continuous.tif"
CHANGE_PREVIEW_NAME = "change_map_binary.png"
FILTERED_MAP_NAME = "change_map_filtered.tif"
ANOMALY_MAP_NAME = "AnomalyCD_map.tif"
ANOMALY_PREVIEW_NAME = "AnomalyCD_map.png"
REGIONS_NAME = "AnomalyCD_regions.gpkg"
FOOTPRINTS_NAME = "AnomalyCD_footprints.gpkg"  # with run_report.py --footprints
REGIONS_GEOJSON_NAME = "AnomalyCD_regions.geojson"  # with --geojson
EXPLANATION_NAME = "AnomalyCD_explanation.tif"  # with --explain
EVAL_CSV_NAME = "evaluation.csv"  # in the result root

# --- Device ----------------------------------------------------------------------------------------------------------
DEFAULT_DEVICE = _setting("DEFAULT_DEVICE", "cuda:0", str)

# --- Input (docs/data.md) --------------------------------------------------------------------------------------------
MIN_IMAGE_SIDE = _setting("MIN_IMAGE_SIDE", 64, int)  # pixels
MAX_IMAGE_SIDE = _setting("MAX_IMAGE_SIDE", 100_000, int)  # pixels
MAX_BLOCK_BYTES = _setting("MAX_BLOCK_BYTES", 512 << 20, int)  # largest tile or strip: GDAL reads it as a whole
GRID_TOLERANCE = 0.5  # largest distance between the corners of two dates on one grid, pixels
MAX_PIXEL_RATIO = 16  # largest ratio of the pixel sizes of two dates
RESAMPLING_SIDE = 2048  # side of the area that is resampled at once, pixels
ALIGN_WINDOW = 512  # side of the windows that --align-shift compares, pixels
ALIGN_WINDOWS = 3  # number of these windows along each side of the image
STRETCH_MODES = ("auto", "minmax", "none")
STRETCH = _setting("STRETCH", "auto", _one_of(*STRETCH_MODES))  # for images of more than 8 bits
STRETCH_LOW_QUANTILE = _setting("STRETCH_LOW_QUANTILE", 0.02, float)  # quantile of an event's values that becomes 0
STRETCH_HIGH_QUANTILE = _setting("STRETCH_HIGH_QUANTILE", 0.98, float)  # quantile that becomes 255
if STRETCH_LOW_QUANTILE >= STRETCH_HIGH_QUANTILE:
    _refuse(
        f"ANOMALYCD_STRETCH_LOW_QUANTILE ({STRETCH_LOW_QUANTILE:g}) must be below ANOMALYCD_STRETCH_HIGH_QUANTILE "
        f"({STRETCH_HIGH_QUANTILE:g}); unset them"
    )
STRETCH_SAMPLE_SIDE = _setting("STRETCH_SAMPLE_SIDE", 1024, int)  # most rows and columns sampled per date

# --- Regions, both stages (sections 3 and 4) -------------------------------------------------------------------------
MAX_REGION_FRACTION = _setting("MAX_REGION_FRACTION", 0.9, float)  # of the window; larger regions are dropped

# --- Stage 1: candidate change (section 3) ---------------------------------------------------------------------------
STAGE1_PATCH_SIZE = _setting("STAGE1_PATCH_SIZE", 2048, int)  # window side, pixels
STAGE1_MIN_MASK_PIXELS = _setting("STAGE1_MIN_MASK_PIXELS", 3000, int)
STAGE1_CHANGE_QUANTILE = _setting("STAGE1_CHANGE_QUANTILE", 0.9, float)  # for the preview change_map_binary.png only
# The published points_per_batch, 64, affects only the speed and is a flag: --points-per-batch.
STAGE1_SAM_PARAMS = _parameters(
    "STAGE1_SAM_PARAMS",
    {
        "points_per_side": 32,
        "pred_iou_thresh": 0.6,
        "stability_score_thresh": 0.4,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.4,
        "crop_n_layers": 0,
        "crop_nms_thresh": 0.4,
        "min_mask_region_area": 10000,  # pixels: holes and islands below it are filled or dropped
    },
)

# --- Stage 2: anomaly among the changes (section 4) ------------------------------------------------------------------
STAGE2_CHANGE_MAP_QUANTILE = _setting("STAGE2_CHANGE_MAP_QUANTILE", 0.7, float)
STAGE2_MIN_MASK_PIXELS = _setting("STAGE2_MIN_MASK_PIXELS", 1500, int)
# Least share of a region's pixels on which a historical image must hold data to take part in the comparison.
STAGE2_MIN_DATE_COVERAGE = _setting("STAGE2_MIN_DATE_COVERAGE", 0.5, float)
STAGE2_PATCH_SIZE = _setting("STAGE2_PATCH_SIZE", 2048, int)  # window side if the image's shorter side is not below it,
STAGE2_SMALL_PATCH_SIZE = _setting("STAGE2_SMALL_PATCH_SIZE", 1024, int)  # else this, pixels
# Part of the published configuration; neither the published stage 2 nor this one generates masks with it.
STAGE2_SAM_PARAMS = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.6, "min_mask_region_area": 1500}

# --- Evaluation (section 5) ------------------------------------------------------------------------------------------
EVAL_QUANTILE_THRESH = _setting("EVAL_QUANTILE_THRESH", 0.945, float)  # stage 1 binary map
EVAL_STAGE2_FIXED_THRESH = _setting("EVAL_STAGE2_FIXED_THRESH", 0.08, float)  # stage 2 binary map
EVAL_CLOSING_SIZE = _setting("EVAL_CLOSING_SIZE", 512, int)  # side of the map that is closed, pixels
EVAL_CLOSING_RADIUS = _setting("EVAL_CLOSING_RADIUS", 3, int)  # of the closing's disk, pixels
# Share of the image below which components are dropped; above 1, none is kept.
EVAL_AREA_RATIO = _setting("EVAL_AREA_RATIO", 0.0003, float, _is_not_negative)
EVAL_BACKGROUND_WEIGHT = _setting("EVAL_BACKGROUND_WEIGHT", 0.1, float, _is_not_negative)  # of a false positive
EVAL_OBJECT_SHARE = _setting("EVAL_OBJECT_SHARE", 0.2, float)  # of an object: from it on, it is found, or right
EVAL_MAX_EVENTS = _setting("EVAL_MAX_EVENTS", 80, int)

# --- Events from catalogs (docs/get_event.md) ------------------------------------------------------------------------
CATALOG_BEFORE = _setting("CATALOG_BEFORE", "2y", str)  # how long before the event historical images are searched
CATALOG_AFTER = _setting("CATALOG_AFTER", "30d", str)  # how long from the event on the monitor image is searched
CATALOG_DATES = _setting("CATALOG_DATES", 6, int)  # historical images
CATALOG_MAX_CLOUD = _setting("CATALOG_MAX_CLOUD", 20, int, lambda percent: 0 <= percent <= 100)  # percent of the box
CATALOG_MAX_SIZE = _setting("CATALOG_MAX_SIZE", 4096, int)  # longest side of an event's images, pixels
# Least share of the box that the monitor and the reference image cover.
CATALOG_MIN_COVERAGE = _setting("CATALOG_MIN_COVERAGE", 0.95, float)
CATALOG_MAX_ITEMS = _setting("CATALOG_MAX_ITEMS", 5000, int)  # of a search
CATALOG_ATTEMPTS = _setting("CATALOG_ATTEMPTS", 5, int)  # at every request
CATALOG_PAUSE = _setting("CATALOG_PAUSE", 1.0, float, _is_not_negative)  # seconds after the first attempt; doubles
CATALOG_TIMEOUT = _setting("CATALOG_TIMEOUT", 60, int)  # seconds

# --- Report (docs/report.md) -----------------------------------------------------------------------------------------
FOOTPRINT_BUFFERS = (0.0, 10.0, 20.0)  # widths by which footprints are enlarged, metres
REPORT_MAX_WIDTH = _setting("REPORT_MAX_WIDTH", 1600, int)  # longer side of the images on a page, pixels
# These limits keep a page below 15 MB: images that exceed them are reduced.
REPORT_PHOTO_BYTES = _setting("REPORT_PHOTO_BYTES", 6 << 20, int)  # all photos of an event
REPORT_RASTER_BYTES = _setting("REPORT_RASTER_BYTES", 5 << 20, int)  # the maps of an event, as text
