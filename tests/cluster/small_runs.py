"""Runs with four small windows per event and stage, and their outputs."""

from pathlib import Path
from typing import Any

from osgeo import gdal

import config
from evaluation.explanations import ExplanationMap
from rasters.maps import ScoreMap, read_parameters
from tests.helpers import whole
from tests.scripts import DEMO_SAM, FEW_POINTS

SMALL_WINDOWS = {"ANOMALYCD_STAGE2_PATCH_SIZE": "130", "ANOMALYCD_STAGE2_SMALL_PATCH_SIZE": "130"}
SETTINGS = {**FEW_POINTS, **SMALL_WINDOWS}


def arguments(data: Path, root: Path) -> list[str]:
    """The command line of a run from `data` to `root`."""
    roots = ("--data-root", data, "--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    return [*map(str, roots), "--patch-size", "130", "--explain", *DEMO_SAM]


def outputs(root: Path) -> dict[str, Any]:
    """Pixels and parameters of all maps, all previews, and the features of all polygons, by name."""
    found: dict[str, Any] = {}
    for path in sorted(root.glob("stage*/*/*")):
        name = str(path.relative_to(root))
        if path.suffix == ".tif":
            opened = ExplanationMap(path) if path.name == config.EXPLANATION_NAME else ScoreMap(path)
            found[name] = (whole(opened).tobytes(), read_parameters(path))
        elif path.suffix == ".gpkg":
            dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
            found[name] = [
                feature.ExportToJson() for layer in ("regions", "region_dates") for feature in dataset.GetLayer(layer)
            ]
        elif path.suffix == ".png":
            found[name] = path.read_bytes()
    return found


def assert_same(root: Path, alone: Path) -> None:
    """Assert that two runs wrote the same files with the same content."""
    assert outputs(root) == outputs(alone)
    assert {path.name for path in root.rglob("*")} == {path.name for path in alone.rglob("*")}  # no temporary files
