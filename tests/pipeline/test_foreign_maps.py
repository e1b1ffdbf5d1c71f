"""Maps of another program: they record no parameters, and may have additions to their names."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import config
from pipeline.side_outputs import SETTINGS_KEY
from rasters.maps import ScoreMap, read_parameters
from rasters.png import read_preview_text
from report.event_report import slug
from tests.helpers import whole
from tests.scripts import DEMO_SAM, FEW_POINTS, FIRE, run_process
from tests.tiffs import write_tiff

FOREIGN_PREVIEW = b"a preview of another program"
COUNTS = "skipped, a map without recorded parameters counts as existing; to compute it again, run"
STAGE1_LINE = f"{COUNTS} with --no-skip-existing (run.py: --no-skip-existing-stage1)"
STAGE2_LINE = f"{COUNTS} without --skip-existing (run.py: --skip-existing-stage2)"
MAP_NAMES = (config.CHANGE_MAP_NAME, config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME)


def make_foreign(path: Path, name: str | None = None) -> Path:
    """Replace a map by one with the same scores, written by another program under `name`."""
    scores = whole(ScoreMap(path))
    path.unlink()
    path.with_suffix(".qml").unlink()
    return write_tiff(path.with_name(name or path.name), scores)


def long_name(name: str) -> str:
    """A map's name with an addition."""
    return name.replace(".tif", "_4_fire.tif")


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """The outputs of both stages for one event, that a test may change."""
    for stage in ("stage1", "stage2"):
        shutil.copytree(finished / stage / FIRE, tmp_path / "results" / stage / FIRE)
    return tmp_path / "results"


def run_stages(data: Path, results: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    roots = ("--data-root", data, "--stage1-root", results / "stage1", "--stage2-root", results / "stage2")
    return run_process("run.py", *roots, "--event", FIRE, *DEMO_SAM, *flags, **FEW_POINTS)


def run_stage1(data: Path, results: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    roots = ("--data-root", data, "--output-root", results / "stage1")
    return run_process("run_stage1.py", *roots, "--event", FIRE, *DEMO_SAM, *flags, **FEW_POINTS)


def run_stage2(data: Path, results: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    roots = ("--data-root", data, "--stage1-root", results / "stage1", "--output-root", results / "stage2")
    return run_process("run_stage2.py", *roots, "--event", FIRE, *DEMO_SAM, *flags)


def run_eval(data: Path, results: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return run_process("run_eval.py", "--data-root", data, "--result-root", results / "stage2", *flags)


def run_report(data: Path, results: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    roots = ("--data-root", data, "--stage1-root", results / "stage1", "--result-root", results / "stage2")
    return run_process("run_report.py", *roots, *flags)


# --- Stage 1 ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [config.CHANGE_MAP_NAME, long_name(config.CHANGE_MAP_NAME)])
def test_stage1_keeps_a_foreign_map_and_its_preview(small_events: Path, results: Path, name: str) -> None:
    folder = results / "stage1" / FIRE
    path = make_foreign(folder / config.CHANGE_MAP_NAME, name)
    preview = folder / config.CHANGE_PREVIEW_NAME
    preview.write_bytes(FOREIGN_PREVIEW)
    before = path.read_bytes()
    for done in (run_stage1(small_events, results), run_stages(small_events, results, "--stage", 1)):
        assert done.returncode == 0, done.stderr
        assert f"{path}: {STAGE1_LINE}" in done.stderr.splitlines()
        assert "0 done, 1 skipped, 0 failed" in done.stderr
        assert "warning" not in done.stderr
        assert path.read_bytes() == before
        assert preview.read_bytes() == FOREIGN_PREVIEW
        assert {file.name for file in folder.iterdir() if not file.name.startswith(".")} == {name, preview.name}


@pytest.mark.parametrize("script", ["run_stage1.py", "run.py"])
def test_flags_overwrite_a_foreign_change_map(small_events: Path, results: Path, script: str) -> None:
    path = make_foreign(results / "stage1" / FIRE / config.CHANGE_MAP_NAME)
    preview = path.with_name(config.CHANGE_PREVIEW_NAME)
    preview.write_bytes(FOREIGN_PREVIEW)
    if script == "run.py":
        done = run_stages(small_events, results, "--stage", 1, "--no-skip-existing-stage1")
    else:
        done = run_stage1(small_events, results, "--no-skip-existing")
    assert done.returncode == 0, done.stderr
    assert "1 done, 0 skipped, 0 failed" in done.stderr
    assert read_parameters(path) is not None
    assert SETTINGS_KEY in read_preview_text(preview)


def test_a_recomputed_map_has_the_exact_name_and_is_preferred_to_a_foreign_one(
    finished: Path, small_events: Path, results: Path
) -> None:
    path = results / "stage1" / FIRE / config.CHANGE_MAP_NAME
    foreign = make_foreign(path, "change_map_continuous_v1.tif")
    before = foreign.read_bytes()
    done = run_stages(small_events, results, "--no-skip-existing-stage1")
    assert done.returncode == 0, done.stderr
    assert STAGE1_LINE not in done.stderr
    assert foreign.read_bytes() == before
    found, expected = (root / "stage2" / FIRE / config.ANOMALY_MAP_NAME for root in (results, finished))
    assert read_parameters(found) == read_parameters(expected)  # with those of the new change map
    done = run_stages(small_events, results, "--skip-existing-stage2")
    assert done.returncode == 0, done.stderr
    assert STAGE1_LINE not in done.stderr
    assert "0 done, 1 skipped, 0 failed" in done.stderr


def test_nothing_is_written_beside_a_foreign_map(small_events: Path, results: Path) -> None:
    path = make_foreign(results / "stage1" / FIRE / config.CHANGE_MAP_NAME)
    path.with_name(config.CHANGE_PREVIEW_NAME).unlink()
    assert run_stage1(small_events, results).returncode == 0
    assert [file for file in path.parent.iterdir() if not file.name.startswith(".")] == [path]


def test_a_foreign_change_map_of_another_size_is_recomputed(small_events: Path, results: Path) -> None:
    path = results / "stage1" / FIRE / config.CHANGE_MAP_NAME
    path.unlink()
    write_tiff(path, np.zeros((90, 80), np.float32))
    done = run_stage1(small_events, results)
    assert done.returncode == 0, done.stderr
    assert f"warning: {path}: its size differs from the images'; recomputing it" in done.stderr.splitlines()
    assert read_parameters(path) is not None


def test_dry_run_skips_foreign_maps(small_events: Path, results: Path) -> None:
    for stage, name in (("stage1", config.CHANGE_MAP_NAME), ("stage2", config.ANOMALY_MAP_NAME)):
        make_foreign(results / stage / FIRE / name)
    done = run_stages(small_events, results, "--skip-existing-stage2", "--dry-run")
    assert "skipped: its change map exists; skipped: its anomaly map exists" in done.stdout
    assert STAGE1_LINE in done.stderr
    assert STAGE2_LINE in done.stderr


# --- Stage 2, evaluation, report -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [config.CHANGE_MAP_NAME, long_name(config.CHANGE_MAP_NAME)])
def test_stage2_reads_a_foreign_change_map(finished: Path, small_events: Path, results: Path, name: str) -> None:
    make_foreign(results / "stage1" / FIRE / config.CHANGE_MAP_NAME, name)
    shutil.rmtree(results / "stage2")
    done = run_stages(small_events, results)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(STAGE1_LINE) == 1
    assert "1 done, 0 skipped, 0 failed" in done.stderr
    assert "was made with different settings" not in done.stderr
    for of_stage2 in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME):
        found, expected = (whole(ScoreMap(root / "stage2" / FIRE / of_stage2)) for root in (results, finished))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    parameters = read_parameters(results / "stage2" / FIRE / config.ANOMALY_MAP_NAME)
    assert parameters is not None
    assert parameters["stage1"] is None


@pytest.mark.parametrize("name", [config.ANOMALY_MAP_NAME, long_name(config.ANOMALY_MAP_NAME)])
@pytest.mark.parametrize("filtered", [True, False])
def test_stage2_keeps_a_foreign_anomaly_map_with_skip_existing(
    small_events: Path, results: Path, name: str, filtered: bool
) -> None:
    folder = results / "stage2" / FIRE
    path = make_foreign(folder / config.ANOMALY_MAP_NAME, name)
    preview, regions = folder / config.ANOMALY_PREVIEW_NAME, folder / config.REGIONS_NAME
    preview.write_bytes(FOREIGN_PREVIEW)
    regions.unlink()
    if not filtered:
        (folder / config.FILTERED_MAP_NAME).unlink()
    before = path.read_bytes()
    done = run_stage2(small_events, results, "--skip-existing")
    assert done.returncode == 0, done.stderr
    assert f"{path}: {STAGE2_LINE}" in done.stderr.splitlines()
    assert "0 done, 1 skipped, 0 failed" in done.stderr
    assert path.read_bytes() == before
    assert preview.read_bytes() == FOREIGN_PREVIEW
    assert not regions.exists()


def test_stage2_recomputes_a_foreign_anomaly_map_by_default(small_events: Path, results: Path) -> None:
    path = make_foreign(results / "stage2" / FIRE / config.ANOMALY_MAP_NAME)
    done = run_stage2(small_events, results)
    assert done.returncode == 0, done.stderr
    assert read_parameters(path) is not None


def test_the_evaluation_and_the_report_read_foreign_maps(
    finished: Path, small_events: Path, results: Path, tmp_path: Path
) -> None:
    for name in MAP_NAMES:
        stage = "stage1" if name == config.CHANGE_MAP_NAME else "stage2"
        make_foreign(results / stage / FIRE / name, long_name(name))
    tables = [tmp_path / "expected.csv", tmp_path / "found.csv"]
    for root, table in zip((finished, results), tables, strict=True):
        done = run_eval(small_events, root, "--output-csv", table)
        assert done.returncode == 0, done.stderr
    assert tables[0].read_text("utf-8") == tables[1].read_text("utf-8")
    done = run_report(small_events, results, "--output", tmp_path / "report", "--event", FIRE)
    assert done.returncode == 0, done.stderr
    assert 'id="threshold"' in (tmp_path / "report" / "events" / f"{slug(FIRE)}.html").read_text("utf-8")
    assert "no change_map" not in (tmp_path / "report" / "index.html").read_text("utf-8")
    done = run_report(small_events, results, "--figure", FIRE, tmp_path / "figure.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("name", MAP_NAMES)
def test_the_exact_name_is_preferred(finished: Path, small_events: Path, results: Path, name: str) -> None:
    stage = "stage1" if name == config.CHANGE_MAP_NAME else "stage2"
    for addition in ("_1", "_2"):
        (results / stage / FIRE / name.replace(".tif", f"{addition}.tif")).write_bytes(b"no map")
    assert run_report(small_events, results, "--output", results / "report", "--event", FIRE).returncode == 0
    assert run_eval(small_events, results).returncode == 0
    done = run_stages(small_events, results, "--skip-existing-stage2")
    assert done.returncode == 0, done.stderr
    assert "0 done, 1 skipped, 0 failed" in done.stderr


@pytest.mark.parametrize("name", MAP_NAMES)
def test_several_foreign_maps_fail_the_event_with_their_names(small_events: Path, results: Path, name: str) -> None:
    folder = results / ("stage1" if name == config.CHANGE_MAP_NAME else "stage2") / FIRE
    path = make_foreign(folder / name, name.replace(".tif", "_b.tif"))
    other = Path(shutil.copy(path, folder / name.replace(".tif", "_a.tif")))
    message = f"{folder}: several files may be {name}: {other.name}, {path.name}; rename the right one to {name}"
    runs = [run_report(small_events, results, "--output", results / "report", "--event", FIRE)]
    if name == config.CHANGE_MAP_NAME:
        runs += [run_stage1(small_events, results), run_stage2(small_events, results)]
    else:
        runs += [run_eval(small_events, results)]
    if name == config.ANOMALY_MAP_NAME:
        runs += [run_stage2(small_events, results, "--skip-existing")]
    for done in runs:
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (folder / name).exists()
