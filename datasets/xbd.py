"""xBD (xView2): images before and after disasters, and damaged buildings as polygons; R. Gupta et al., 2019."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from osgeo import gdal, ogr

from datasets.event_folder import ANOMALY, EventReader, NewEvent
from utils import EventError, UsageError

TIERS = ("train", "tier1", "tier3", "test", "hold")
DAMAGED = ("minor-damage", "major-damage", "destroyed")  # anomalies; no-damage and un-classified are background
CATEGORIES = {"fire": 4, "earthquake": 2}  # by the type of disaster; all others: 6


def xbd(source: Path) -> Iterator[EventReader]:
    """Return the pairs of all tiers: folders, or the source itself, with `images` and `labels`."""
    folders = [folder for folder in (source, *(source / tier for tier in TIERS)) if (folder / "labels").is_dir()]
    if not folders:
        raise UsageError(f"{source}: no folder images and labels, nor {', '.join(TIERS)} with them")
    for folder in folders:
        for path in sorted((folder / "labels").glob("*_post_disaster.json")):
            yield partial(_pair, folder, path)


def _pair(folder: Path, after: Path) -> NewEvent:
    before = after.with_name(after.name.replace("_post_", "_pre_"))
    name = after.name.removesuffix("_post_disaster.json")
    category = CATEGORIES.get(_read(after)["metadata"].get("disaster_type", ""), 6)
    return NewEvent(
        f"{category}_xBD_{name}",
        {_date(before): _image(folder, before)},
        (_date(after), _image(folder, after)),
        partial(_label, after),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["metadata"], dict) or not isinstance(content["features"]["xy"], list):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise EventError(f"{path}: missing, or no label of xBD (JSON with metadata and features)") from None
    return content


def _date(path: Path) -> str:
    """Return the day of an image, YYYYMMDD."""
    captured = str(_read(path)["metadata"].get("capture_date", ""))[:10].replace("-", "")
    if len(captured) != 8 or not captured.isdigit():
        raise EventError(f"{path}: its metadata give no capture_date")
    return captured


def _image(folder: Path, label: Path) -> Path:
    """Return the image of a label: a GeoTIFF, if there is one, else a PNG."""
    georeferenced = folder / "images" / f"{label.stem}.tif"
    return georeferenced if georeferenced.exists() else georeferenced.with_suffix(".png")


def _label(path: Path) -> np.ndarray:
    """Rasterize the damaged buildings, (H, W) uint8."""
    content = _read(path)
    width, height = (int(content["metadata"].get(side, 1024)) for side in ("width", "height"))
    source = ogr.GetDriverByName("Memory").CreateDataSource("")
    layer = source.CreateLayer("")
    for feature in content["features"]["xy"]:
        if feature.get("properties", {}).get("subtype") in DAMAGED:
            building = ogr.Feature(layer.GetLayerDefn())
            try:
                building.SetGeometry(ogr.CreateGeometryFromWkt(feature["wkt"]))
            except (KeyError, RuntimeError):
                raise EventError(f"{path}: a building's outline is damaged") from None
            layer.CreateFeature(building)
    raster = gdal.GetDriverByName("MEM").Create("", width, height)
    raster.SetGeoTransform((0, 1, 0, 0, 0, 1))
    gdal.RasterizeLayer(raster, [1], layer, burn_values=[ANOMALY])
    return raster.ReadAsArray()
