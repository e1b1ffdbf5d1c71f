"""Files beside an image: masks and georeferencing count whatever the shell's settings are, also if they come later."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

import config
from rasters.maps import ScoreMap
from tests.helpers import whole
from tests.scripts import DEMO_SAM, FEW_POINTS, FIRE, run_process
from tests.tiffs import write_tiff

WORLD_FILE = "0.5\n0\n0\n-0.5\n500000.25\n5199999.75\n"
CLOUDS = (slice(0, 100), slice(0, 90))
HOSTILE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_GEOREF_SOURCES": "NONE",
    "COMPRESS_OVERVIEW": "JPEG",
    "GDAL_TIFF_INTERNAL_MASK": "NO",
    "OSR_DEFAULT_AXIS_MAPPING_STRATEGY": "TRADITIONAL_GIS_ORDER",
    "PROJ_NETWORK": "ON",
}


def unplaced_event(small_events: Path, root: Path) -> Path:
    """Copy an event without its georeferencing; returns its folder."""
    folder = root / FIRE
    folder.mkdir(parents=True)
    for path in (small_events / FIRE).glob("*.tif"):
        values = gdal.Open(str(path)).ReadAsArray()
        write_tiff(folder / path.name, values if values.ndim == 2 else values.transpose(1, 2, 0))
    return folder


def add_side_files(folder: Path) -> None:
    """Give the monitor image a mask with clouds, and all images a world file."""
    (monitor,) = (path for path in folder.glob("anomaly_*.tif") if "label" not in path.name)
    mask = np.full(gdal.Open(str(monitor)).ReadAsArray().shape[1:], 255, np.uint8)
    mask[CLOUDS] = 0
    written = write_tiff(
        folder / "mask.tif", mask, change=lambda dataset: dataset.SetMetadataItem("INTERNAL_MASK_FLAGS_1", "2")
    )
    written.rename(f"{monitor}.msk")
    for path in folder.glob("*.tif"):
        path.with_suffix(".tfw").write_text(WORLD_FILE)


def run_stages(data_root: Path, output: Path, *flags: str, **environment: str) -> None:
    roots = ("--data-root", data_root, "--stage1-root", output / "stage1", "--stage2-root", output / "stage2")
    done = run_process("run.py", *roots, *flags, *DEMO_SAM, **FEW_POINTS, **environment)
    assert done.returncode == 0, done.stderr


def outputs(root: Path) -> dict[str, tuple[np.ndarray, tuple[float, ...]]]:
    """Return pixels and transform of every map."""
    maps = {path.name: ScoreMap(path) for path in root.rglob("*.tif")}
    return {name: (whole(found), found.georeference.transform or ()) for name, found in maps.items()}


def test_the_shells_settings_change_no_map(small_events: Path, tmp_path: Path) -> None:
    add_side_files(unplaced_event(small_events, tmp_path / "data"))
    found = []
    for name, settings in (("plain", {}), ("hostile", HOSTILE)):
        run_stages(tmp_path / "data", tmp_path / name, **settings)
        found.append(outputs(tmp_path / name))
    assert set(found[0]) == set(found[1]) == {config.CHANGE_MAP_NAME, config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME}
    for name, (pixels, transform) in found[0].items():
        np.testing.assert_array_equal(pixels, found[1][name][0])
        assert np.isnan(pixels[CLOUDS]).all()
        assert transform == found[1][name][1] == (500000.0, 0.5, 0.0, 5200000.0, 0.0, -0.5)


@pytest.mark.parametrize("script", ["run.py", "run_eval.py", "run_report.py", "quick_test.py"])
def test_a_proj_of_another_installation_is_named_before_any_work(
    small_events: Path, tmp_path: Path, script: str
) -> None:
    done = run_process(script, "--data-root", small_events, PROJ_LIB=str(tmp_path), PROJ_DATA=str(tmp_path))
    assert done.returncode == (1 if script == "quick_test.py" else 2)
    assert done.stderr.splitlines()[-1].startswith("error: PROJ does not work (")
    assert f"PROJ_DATA is {tmp_path} and PROJ_LIB is {tmp_path}: unset it" in done.stderr
    assert "Traceback" not in done.stderr


def test_side_files_that_are_added_later_count(small_events: Path, tmp_path: Path) -> None:
    folder = unplaced_event(small_events, tmp_path / "data")
    run_stages(tmp_path / "data", tmp_path)
    assert not np.isnan(outputs(tmp_path / "stage1")[config.CHANGE_MAP_NAME][0]).any()
    add_side_files(folder)
    run_stages(tmp_path / "data", tmp_path, "--skip-existing-stage2")
    shutil.rmtree(tmp_path / "data")
    for pixels, transform in outputs(tmp_path).values():
        assert np.isnan(pixels[CLOUDS]).all()
        assert transform[:1] == (500000.0,)
