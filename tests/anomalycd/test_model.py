"""The method on arrays and on events from Python, compared with `run.py`."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import config
import run
from anomalycd import AnomalyCD
from img_io import EventImages, open_event, read_window, valid_in_all
from rasters.geotiff import GeoTiff
from rasters.maps import ScoreMap, read_parameters
from tests.helpers import whole
from tests.scripts import DEMO_SAM, FIRE, PROJECT
from tests.tiffs import write_tiff
from utils import EventError, Window, read_event

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (64, 80, 3), np.uint8)
DATES = ("normal_20180614", "normal_20181002", "normal_20190311", "normal_20190620")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_points")]


@pytest.fixture(scope="module")
def model() -> AnomalyCD:
    return AnomalyCD("vit_demo", config.DEMO_CHECKPOINT, device="cpu")


def run_stages(data_root: Path, root: Path, *flags: str) -> tuple[np.ndarray, np.ndarray]:
    """The maps that `run.py` writes of the fire."""
    roots = ("--data-root", data_root, "--stage1-root", root / "one", "--stage2-root", root / "two")
    assert run.main([*map(str, roots), "--event", FIRE, *DEMO_SAM, *flags]) == 0
    maps = (root / "one" / FIRE / config.CHANGE_MAP_NAME, root / "two" / FIRE / config.ANOMALY_MAP_NAME)
    changes, anomalies = (whole(ScoreMap(path)) for path in maps)
    assert np.nanmax(anomalies) > 0.1
    return changes, anomalies


def compute(model: AnomalyCD, images: EventImages) -> tuple[np.ndarray, np.ndarray]:
    """The maps of an event's arrays."""
    everywhere = Window(0, 0, *images.shape[::-1])
    pixels = [read_window(image, everywhere) for image in (*images.historical, images.monitor)]
    *historical, monitor = (of_date.rgb for of_date in pixels)
    changes = model.change(historical[-1], monitor, valid_in_all(pixels[-2:]))
    return changes, model.anomaly(historical, monitor, changes, [of_date.valid for of_date in pixels[:-1]])


def test_arrays_give_the_maps_of_run(model: AnomalyCD, data_root: Path, tmp_path: Path) -> None:
    expected = run_stages(data_root, tmp_path)
    np.testing.assert_array_equal(compute(model, open_event(read_event(data_root / FIRE))), expected)


def test_a_tolerance_gives_the_maps_of_run(data_root: Path, tmp_path: Path) -> None:
    published = run_stages(data_root, tmp_path / "published")
    expected = run_stages(data_root, tmp_path, "--tolerance", "1")
    for with_tolerance, without in zip(expected, published, strict=True):
        assert (with_tolerance <= without + 1e-6).mean() > 0.9  # stage 2 may have other regions
        assert (with_tolerance < without).any()
    for path in (tmp_path / "one" / FIRE / config.CHANGE_MAP_NAME, tmp_path / "two" / FIRE / config.ANOMALY_MAP_NAME):
        assert (read_parameters(path) or {})["tolerance"] == 1
    model = AnomalyCD("vit_demo", config.DEMO_CHECKPOINT, device="cpu", tolerance=1)
    np.testing.assert_array_equal(compute(model, open_event(read_event(data_root / FIRE))), expected)


@pytest.mark.usefixtures("small_windows")
def test_several_windows_and_missing_data_give_the_maps_of_run(
    model: AnomalyCD, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The monitor image lacks a window of stage 1, an older date most of the image.
    for name, missing in (("anomaly_20210720", np.s_[:130, 126:]), (DATES[0], np.s_[60:])):
        path = data_root / FIRE / f"{name}.tif"
        values = GeoTiff(path).read_bands([1, 2, 3], Window(0, 0, 256, 256))
        values[missing] = 0
        write_tiff(path, values, nodata=0)
    monkeypatch.setattr(config, "STAGE1_PATCH_SIZE", 130)
    expected = run_stages(data_root, tmp_path, "--patch-size", "130")
    assert np.isnan(expected[0]).sum() == np.isnan(expected[1]).sum() == 130 * 130
    np.testing.assert_array_equal(compute(model, open_event(read_event(data_root / FIRE))), expected)


def test_run_writes_the_outputs_of_run(model: AnomalyCD, data_root: Path, tmp_path: Path) -> None:
    changes, anomalies = run_stages(data_root, tmp_path)
    maps = model.run(data_root / FIRE, tmp_path / "out")
    np.testing.assert_array_equal(whole(ScoreMap(maps.change)), changes)
    np.testing.assert_array_equal(whole(ScoreMap(maps.anomaly)), anomalies)
    assert maps.regions.exists()
    assert maps.anomaly.parent == tmp_path / "out" / config.STAGE2_OUTPUT_DIR.name / FIRE


def test_run_raises_what_is_wrong_with_an_event(model: AnomalyCD, data_root: Path, tmp_path: Path) -> None:
    (data_root / FIRE / "anomaly_20210720.tif").write_bytes(b"II*\0")
    with pytest.raises(EventError, match=r"anomaly_20210720\.tif"):
        model.run(data_root / FIRE, tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (IMAGE[..., 0], r"\(64, 80\) uint8; needs \(height, width, 3\) uint8 RGB"),
        (IMAGE.astype(np.float32), r"\(64, 80, 3\) float32; needs"),
        (IMAGE[:32], r"images of \(64, 80\) and \(32, 80\) pixels"),
    ],
)
def test_arrays_that_are_no_images_are_refused(model: AnomalyCD, other: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.change(IMAGE, other)
    with pytest.raises(ValueError, match=message):
        model.anomaly([IMAGE, IMAGE], other, np.zeros((64, 80), np.float32))


def test_a_change_map_that_is_none_is_refused(model: AnomalyCD) -> None:
    for changes in (np.zeros((64, 80)), np.zeros((64, 81), np.float32)):
        with pytest.raises(ValueError, match=r"needs \(64, 80\) float32"):
            model.anomaly([IMAGE], IMAGE, changes)


def test_the_page_computes_what_run_does(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my_data" / "4_fire"
    shutil.copytree(data_root / FIRE, folder)
    for date in DATES[1:3]:
        (folder / f"{date}.tif").unlink()
    monkeypatch.chdir(tmp_path)
    roots = ("--data-root", "my_data", "--stage1-root", "one", "--stage2-root", "two")
    assert run.main([*roots, *DEMO_SAM]) == 0
    page = (PROJECT / "docs" / "python.md").read_text(encoding="utf-8")
    assert 'AnomalyCD("vit_t")' in page
    found: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block.replace("vit_t", "vit_demo"), found)  # the notebook below runs MobileSAM
    expected = [Path("one", "4_fire", config.CHANGE_MAP_NAME), Path("two", "4_fire", config.ANOMALY_MAP_NAME)]
    for path, array, written in zip(expected, (found["change"], found["anomaly"]), found["maps"], strict=False):  # type: ignore[call-overload]
        np.testing.assert_array_equal(array, whole(ScoreMap(path)))
        np.testing.assert_array_equal(array, whole(ScoreMap(written)))


@pytest.mark.usefixtures("mobile_sam")
def test_the_notebook_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(PROJECT / "docs")
    notebook = json.loads(Path("notebook.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    exec("\n".join(sources), {})
    assert Path.cwd() == PROJECT
    assert re.fullmatch(r"anomalous: \d+\.\d% of .*\nfound: 9\d\.\d% of the label; .*\n", capsys.readouterr().out)
