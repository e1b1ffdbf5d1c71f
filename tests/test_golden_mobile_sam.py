"""The scripts with MobileSAM's official weights, compared with the literal method over an independent encoder."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import config
from rasters.maps import ScoreMap
from tests.helpers import whole
from tests.make_golden import CASES, FEW_POINTS, FOLDER, data_root, read_images
from tests.scripts import run_process

# With all published points, a minute or two: only on demand.
TESTED = [case for case in CASES if case[1] == FEW_POINTS or os.environ.get("ANOMALYCD_TEST_PUBLISHED")]


class Compared(NamedTuple):
    """The maps of an event: those of the scripts, and those of the literal method."""

    found: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=TESTED, ids=str)
def maps(request: pytest.FixtureRequest, mobile_sam: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    event, points = request.param
    root = tmp_path_factory.mktemp("mobile_sam")
    data = data_root(event, root / "data")
    with np.load(FOLDER / f"{event}_{points}.npz") as arrays:
        expected = dict(arrays)
    assert read_images(data / event).checksum == str(expected.pop("images")), "the event is drawn in another way"
    done = run_process(
        *("run.py", "--data-root", data, "--event", event, "--device", "cpu"),
        *("--stage1-root", root / "stage1", "--stage2-root", root / "stage2"),
        *("--sam-model-type", "vit_t", "--sam-checkpoint", mobile_sam),
        ANOMALYCD_STAGE1_SAM_PARAMS=f'{{"points_per_side": {points}}}',
    )
    assert done.returncode == 0, done.stderr
    files = {
        "change_map": root / "stage1" / event / config.CHANGE_MAP_NAME,
        "filtered": root / "stage2" / event / config.FILTERED_MAP_NAME,
        "anomaly": root / "stage2" / event / config.ANOMALY_MAP_NAME,
    }
    return Compared({name: whole(ScoreMap(path)) for name, path in files.items()}, expected)


@pytest.mark.parametrize("name", ["change_map", "filtered", "anomaly"])
def test_a_map_equals_the_literal_one(maps: Compared, name: str) -> None:
    found, expected = maps.found[name], maps.expected[name]
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float32
    assert len(np.unique(expected)) > 5
    # Rounding decides whether a pixel whose logit is almost 0 belongs to a mask.
    assert np.count_nonzero(np.abs(found - expected) > 1e-5) <= 1e-5 * found.size
