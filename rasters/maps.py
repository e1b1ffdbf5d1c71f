"""Finds and reads maps, and says whether they are current."""

import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from osgeo import gdal

from cli.provenance import program_tags
from rasters.geotiff import GeoTiff, gdal_errors_named
from rasters.raster import Raster, read_strips
from utils import LOG, EventError, Window, differing_keys

PARAMETERS_TAG = "ANOMALYCD_PARAMETERS"


class MapState(Enum):
    """What a stage finds in place of a map that it would write."""

    OUTDATED = "missing, damaged, of another size, or made with other parameters"
    CURRENT = "whole, of the right size, and made with the same parameters"
    FOREIGN = "whole and of the right size, but made by another program: it records no parameters"


class ScoreMap(GeoTiff):
    """A change or anomaly map: NaN where its mask marks no data."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises EventError if it is not a float32 map of one band."""
        super().__init__(path)
        with gdal_errors_named(path):
            band = self.dataset.GetRasterBand(1)
            if self.dataset.RasterCount != 1 or band.DataType != gdal.GDT_Float32:
                raise EventError(f"{path}: not a single-band float32 map; remove it and run its stage again")
            self._has_mask = band.GetMaskFlags() == gdal.GMF_PER_DATASET

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w) float32."""
        values = self.read_bands([1], window)[..., 0]
        if self._has_mask:
            values[self.read_mask(window) == 0] = np.nan
        return values


def read_parameters(path: Path) -> dict[str, Any] | None:
    """Return the parameters that a map was written with; None for a map of another program.

    Raises EventError if the file or its metadata item is damaged.
    """
    text = GeoTiff(path).dataset.GetMetadataItem(PARAMETERS_TAG)
    try:
        return json.loads(text) if text else None
    except ValueError:
        raise EventError(f"{path}: its metadata item {PARAMETERS_TAG} is damaged; remove the file") from None


def open_stage_map(path: Path, stage: int) -> ScoreMap:
    """Open a map of stage 1 or 2, or the one of another program; see `find_map`.

    Raises EventError if it is missing or damaged, or if several files match its name.
    """
    path = find_map(path)
    if not path.exists():
        raise EventError(f"{path}: no stage {stage} output for this event; run stage {stage} first")
    return ScoreMap(path)


def open_score_map(path: Path) -> ScoreMap:
    """Open the map of another method. Raises EventError if it is missing, damaged or not float32."""
    if not path.exists():
        raise EventError(f"{path}: no such map for this event")
    return ScoreMap(path)


def find_map(path: Path) -> Path:
    """Return the file that holds a map: `path`, or the only other file of its folder whose name begins like it.

    Another program may have added to the name: `AnomalyCD_map_4_fire.tif` is found for `AnomalyCD_map.tif`. Returns
    `path` if there is no such file. Raises EventError if there are several.
    """
    if path.exists():
        return path
    found = sorted(file for file in path.parent.glob(f"{path.stem}*{path.suffix}") if file.is_file())
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise EventError(
            f"{path.parent}: several files may be {path.name}: {names}; rename the right one to {path.name}"
        )
    return found[0] if found else path


def map_state(
    path: Path, shape: tuple[int, int], parameters: dict[str, Any], open_file: Callable[[Path], Raster] = ScoreMap
) -> MapState:
    """Return whether a map is current: complete, of this size and with these parameters; log why it is outdated."""
    if not path.exists():
        return MapState.OUTDATED
    try:
        found, recorded = open_file(path), read_parameters(path)
        for _ in read_strips(found):
            pass  # reading detects a file that was cut off
    except EventError as error:
        LOG.warning("%s; recomputing it", error)
        return MapState.OUTDATED
    if found.shape != shape:
        LOG.warning("%s: its size differs from the images'; recomputing it", path)
        return MapState.OUTDATED
    if recorded is None:
        return MapState.FOREIGN
    changed = differing_keys(recorded, parameters)
    if changed:
        LOG.warning("%s: was computed with different %s; recomputing it", path, ", ".join(changed))
    return MapState.OUTDATED if changed else MapState.CURRENT


def map_tags(parameters: dict[str, Any], checkpoint: str) -> dict[str, str]:
    """Return the metadata items of a map: parameters (for `read_parameters`), checkpoint, and the program's tags."""
    return program_tags() | {
        PARAMETERS_TAG: json.dumps(parameters, sort_keys=True),
        "ANOMALYCD_CHECKPOINT": checkpoint,
    }
