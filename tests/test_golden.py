"""The scripts at the published settings, compared with results of the published algorithm."""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from osgeo import gdal

import config
from evaluation.tables import CSV_COLUMNS
from rasters.geotiff import GeoTiff
from rasters.maps import ScoreMap
from tests.helpers import whole
from tests.scripts import DEMO_SAM, run_process

GOLDEN = Path(__file__).parent / "golden"
EVENTS = ("1_golden_explosion", "4_golden_fire")


class Outputs(NamedTuple):
    """Output folders and evaluation row of one golden event."""

    stage1: Path
    stage2: Path
    table: dict[str, str]


@pytest.fixture(scope="session", params=EVENTS)
def event_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def expected(event_name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{event_name}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def outputs(event_name: str, expected: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    root = tmp_path_factory.mktemp(event_name)
    roots = ("--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    data = ("--data-root", GOLDEN / "events")
    patch_size = ("--patch-size", int(expected["stage1_patch_size"]))
    done = run_process("run.py", *data, *roots, *patch_size, "--event", event_name, *DEMO_SAM)
    assert done.returncode == 0, done.stderr
    # The other golden event has no maps in this root: the evaluation fails it, with exit code 1.
    run_process("run_eval.py", *data, "--result-root", root / "stage2")
    with open(root / "stage2" / config.EVAL_CSV_NAME, newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return Outputs(root / "stage1" / event_name, root / "stage2" / event_name, row)


def share_within(found: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return float(np.mean(np.abs(found - expected) <= tolerance))


def test_change_map_equals_the_reference(outputs: Outputs, expected: dict[str, np.ndarray]) -> None:
    assert share_within(whole(ScoreMap(outputs.stage1 / config.CHANGE_MAP_NAME)), expected["change_map"], 1e-5) >= 0.999


def test_filtered_map_equals_the_reference(outputs: Outputs, expected: dict[str, np.ndarray]) -> None:
    assert share_within(whole(ScoreMap(outputs.stage2 / config.FILTERED_MAP_NAME)), expected["filtered"], 1e-5) >= 0.999


def test_anomaly_map_equals_the_reference(outputs: Outputs, expected: dict[str, np.ndarray]) -> None:
    assert share_within(whole(ScoreMap(outputs.stage2 / config.ANOMALY_MAP_NAME)), expected["anomaly"], 1e-5) >= 0.999


def test_preview_equals_the_reference(outputs: Outputs, expected: dict[str, np.ndarray]) -> None:
    preview = cv2.imread(str(outputs.stage2 / config.ANOMALY_PREVIEW_NAME), cv2.IMREAD_UNCHANGED)
    assert preview is not None
    assert set(np.unique(preview)) <= {0, 255}
    assert np.mean((preview > 0) == expected["preview"]) >= 0.999


def test_metrics_equal_the_reference(outputs: Outputs, expected: dict[str, np.ndarray]) -> None:
    for name, value in json.loads(str(expected["metrics"])).items():
        assert float(outputs.table[name]) == pytest.approx(value, abs=1e-3), name


def test_table_has_exactly_the_published_columns(outputs: Outputs) -> None:
    assert tuple(outputs.table) == CSV_COLUMNS


def test_maps_have_the_georeference_of_the_reference_image(outputs: Outputs, event_name: str) -> None:
    reference = GeoTiff(GOLDEN / "events" / event_name / "normal_20200311.tif").georeference
    for path in (outputs.stage1 / config.CHANGE_MAP_NAME, outputs.stage2 / config.ANOMALY_MAP_NAME):
        written = gdal.Open(str(path))
        assert written.GetGeoTransform() == reference.transform
        assert written.GetSpatialRef().IsSame(reference.spatial_reference)
