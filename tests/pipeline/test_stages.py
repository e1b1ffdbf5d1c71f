"""The settings that a stage records, and the files that it writes again if they change."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import config
import run
from evaluation.polygons import read_regions_metadata
from img_io import ImageOptions
from pipeline.side_outputs import SETTINGS_KEY
from pipeline.stage1 import Stage1Request, Stage1Settings
from pipeline.stage2 import Stage2Request, Stage2Settings
from rasters.maps import read_parameters
from rasters.png import read_preview_text
from sam.settings import EngineSettings
from sam.weights import SamIdentity
from tests.scripts import DEMO_SAM, FEW_POINTS, FIRE, run_process
from utils import read_event

pytestmark = pytest.mark.usefixtures("few_points")


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy of both stages' outputs that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "results"))


def run_again(data: Path, results: Path) -> int:
    roots = ("--data-root", data, "--stage1-root", results / "stage1", "--stage2-root", results / "stage2")
    return run.main([*map(str, roots), "--skip-existing-stage2", *DEMO_SAM])


@pytest.fixture
def no_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineSettings, "load", lambda _: pytest.fail("the SAM was loaded"))


def share_set(preview: Path) -> float:
    pixels = np.asarray(cv2.imread(str(preview), cv2.IMREAD_UNCHANGED))
    assert set(np.unique(pixels)) <= {0, 255}
    return float((pixels == 255).mean())


@pytest.mark.usefixtures("no_sam")
def test_current_outputs_are_skipped_without_loading_sam(
    small_events: Path, results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    assert run_again(small_events, results) == 0
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()} == before
    assert "0 done, 2 skipped, 0 failed" in caplog.text


@pytest.mark.usefixtures("no_sam")
def test_previews_and_polygons_are_rewritten_without_sam_if_settings_change(
    small_events: Path, results: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change, anomaly = (
        results / "stage1" / FIRE / config.CHANGE_PREVIEW_NAME,
        results / "stage2" / FIRE / config.ANOMALY_PREVIEW_NAME,
    )
    regions = results / "stage2" / FIRE / config.REGIONS_NAME
    maps = {path: path.stat().st_mtime_ns for path in results.rglob("*.tif")}
    before = change.read_bytes(), anomaly.read_bytes(), regions.read_bytes()
    share = share_set(anomaly)
    monkeypatch.setattr(config, "STAGE1_CHANGE_QUANTILE", 0.3)
    monkeypatch.setattr(config, "EVAL_STAGE2_FIXED_THRESH", 0.9)
    assert run_again(small_events, results) == 0
    assert caplog.text.count("preview and polygons are written again from the map") == 4  # two stages of two events
    assert read_preview_text(change) == {SETTINGS_KEY: '{"quantile": 0.3}'}
    assert share_set(anomaly) < share
    assert regions.read_bytes() != before[2]
    assert read_regions_metadata(regions) is not None
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.tif")} == maps
    monkeypatch.undo()
    monkeypatch.setitem(config.STAGE1_SAM_PARAMS, "points_per_side", 4)
    assert run_again(small_events, results) == 0
    assert (change.read_bytes(), anomaly.read_bytes()) == before[:2]


@pytest.mark.usefixtures("no_sam")
@pytest.mark.parametrize("name", [config.ANOMALY_PREVIEW_NAME, config.REGIONS_NAME])
def test_a_missing_side_file_is_written_again(small_events: Path, results: Path, name: str) -> None:
    path = results / "stage2" / FIRE / name
    path.unlink()
    assert run_again(small_events, results) == 0
    assert path.exists()


@pytest.mark.usefixtures("no_sam")
def test_outputs_that_no_longer_fit_are_removed_with_a_line(
    small_events: Path, results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    geojson = results / "stage2" / FIRE / config.REGIONS_GEOJSON_NAME
    roots = ("--data-root", small_events, "--stage1-root", results / "stage1", "--stage2-root", results / "stage2")
    flags = [*map(str, roots), "--skip-existing-stage2", *DEMO_SAM]
    assert run.main([*flags, "--geojson"]) == 0
    assert geojson.exists()
    assert run.main(flags) == 0
    assert not geojson.exists()
    assert f"{geojson}: removed, it belonged to outputs that are replaced" in caplog.text


@pytest.mark.usefixtures("no_sam")
def test_geojson_without_a_usable_crs_is_asked_for_once(
    small_events: Path, results: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("evaluation.polygons.outlines_in_wgs84", lambda *_: None)
    old = results / "stage2" / FIRE / config.REGIONS_GEOJSON_NAME
    old.write_text("of an earlier run")
    roots = ("--data-root", small_events, "--stage1-root", results / "stage1", "--stage2-root", results / "stage2")
    flags = [*map(str, roots), "--skip-existing-stage2", "--geojson", *DEMO_SAM]
    written = []
    for _ in range(2):
        assert run.main(flags) == 0
        written.append((results / "stage2" / FIRE / config.REGIONS_NAME).stat().st_mtime_ns)
    assert not old.exists()
    assert written[0] == written[1]
    assert caplog.text.count("preview and polygons are written again from the map") == 2  # of two events, once


def test_previews_record_their_settings(finished: Path) -> None:
    preview = finished / "stage2" / FIRE / config.ANOMALY_PREVIEW_NAME
    assert read_preview_text(preview) == {
        SETTINGS_KEY: '{"area_ratio": 0.0003, "closing_radius": 3, "closing_size": 512, "threshold": 0.08}'
    }


def test_a_stage_records_its_settings(finished: Path, small_events: Path, tmp_path: Path) -> None:
    event, sam = read_event(small_events / FIRE), SamIdentity({"sam_model_type": "vit_demo"}, "")
    settings = Stage1Settings(100, {"points_per_side": 3}, min_mask_pixels=7, max_region_fraction=0.5)
    stage = Stage1Request(event, tmp_path, ImageOptions(), True, settings).open(sam)
    recorded = {name: stage.parameters[name] for name in ("patch_size", "sam_params", "min_mask_pixels")}
    assert recorded == {"patch_size": 100, "sam_params": {"points_per_side": 3}, "min_mask_pixels": 7}
    assert stage.parameters["max_region_fraction"] == stage.request.settings.max_region_fraction == 0.5
    assert {window.width for window in stage.windows} == {100}
    change_map = finished / "stage1" / FIRE / config.CHANGE_MAP_NAME
    second = Stage2Request(event, tmp_path, ImageOptions(), True, Stage2Settings(), change_map).open(sam)
    assert second.parameters["stage1"] == read_parameters(change_map)
    assert second.parameters["change_map_quantile"] == second.request.settings.change_map_quantile == 0.7
    assert second.parameters["patch_sizes"] == [1024, 2048]


def test_the_scripts_rewrite_previews_and_polygons_with_settings_of_the_environment(
    small_events: Path, results: Path
) -> None:
    data = ("--data-root", small_events, *DEMO_SAM)
    changed = {"ANOMALYCD_EVAL_STAGE2_FIXED_THRESH": "0.7", "ANOMALYCD_STAGE1_CHANGE_QUANTILE": "0.3", **FEW_POINTS}
    folders = ("--stage1-root", results / "stage1", "--output-root", results / "stage2")
    first = run_process("run_stage1.py", "--output-root", results / "stage1", *data, **changed)
    second = run_process("run_stage2.py", "--skip-existing", *folders, *data, **changed)
    for done in (first, second):
        assert done.returncode == 0, done.stderr
        assert "0 done, 2 skipped, 0 failed" in done.stderr
    preview = read_preview_text(results / "stage1" / FIRE / config.CHANGE_PREVIEW_NAME)
    assert preview == {SETTINGS_KEY: '{"quantile": 0.3}'}
    stage2 = results / "stage2" / FIRE
    recorded = read_preview_text(stage2 / config.ANOMALY_PREVIEW_NAME)
    assert recorded is not None
    assert json.loads(recorded[SETTINGS_KEY])["threshold"] == 0.7
    found = read_regions_metadata(stage2 / config.REGIONS_NAME)
    assert found is not None
    assert found.items() >= recorded.items()
    assert (found["MONITOR_DATE"], found["REFERENCE_DATE"]) == ("2021-07-20", "2019-06-20")
    assert found["SAM"] == "vit_demo"
    assert (found["PRECISION"], found["THRESHOLD"]) == ("fp32", "0.7")
