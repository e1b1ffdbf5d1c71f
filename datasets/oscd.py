"""OSCD (Onera Satellite Change Detection): pairs of Sentinel-2 images of cities; R. C. Daudt et al., IGARSS 2018."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datasets.event_folder import EventReader, Labelled, NewEvent, open_raster
from utils import EventError, UsageError

IMAGES = "Onera Satellite Change Detection dataset - Images"
LABELS = (
    "Onera Satellite Change Detection dataset - Train Labels",
    "Onera Satellite Change Detection dataset - Test Labels",
)
RED_GREEN_BLUE = ("B04", "B03", "B02")


def oscd(source: Path) -> Iterator[EventReader]:
    """Return the cities: bands of both images on one grid (`imgs_1_rect`, `imgs_2_rect`), and change maps (`cm`)."""
    images = source / IMAGES
    cities = sorted(path.parent for path in images.glob("*/imgs_1_rect"))
    if not cities:
        raise UsageError(
            f"{images}: no city with imgs_1_rect and imgs_2_rect; SOURCE is the folder that holds {IMAGES!r}"
        )
    for city in cities:
        yield partial(_city, source, city)


def _city(source: Path, city: Path) -> NewEvent:
    before, after = _dates(city / "dates.txt")
    bands = [[city / f"imgs_{number}_rect" / f"{band}.tif" for band in RED_GREEN_BLUE] for number in (1, 2)]
    return NewEvent(f"6_OSCD_{city.name}", {before: bands[0]}, (after, bands[1]), partial(_label, source, city.name))


def _dates(path: Path) -> tuple[str, str]:
    """Read the two dates, YYYYMMDD, that end the lines of a file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.findall(r"\b((?:19|20)\d{6})\s*$", text, re.MULTILINE)
    if len(found) != 2:
        raise EventError(f"{path}: does not give two dates as YYYYMMDD, one per line")
    return found[0], found[1]


def _label(source: Path, city: str) -> Labelled:
    """Open the change map of a city: 2 in the GeoTIFF, any value in the PNG."""
    for folder in LABELS:
        maps = source / folder / city / "cm"
        if (maps / f"{city}-cm.tif").exists():
            return Labelled(open_raster(maps / f"{city}-cm.tif"), partial(np.less, 1))
        if (maps / "cm.png").exists():
            return Labelled(open_raster(maps / "cm.png"), partial(np.less, 0))
    raise EventError(f"{source}: no change map of {city}, {city}/cm/{city}-cm.tif or cm.png, in {' or '.join(LABELS)}")
