"""`--explain`, `--simplify`, `--geojson` and `--overlap` through the scripts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

import config
import run
from evaluation.explanations import NOT_COMPARED, ExplanationMap
from rasters.geotiff import GeoTiff
from rasters.maps import ScoreMap, read_parameters
from tests.helpers import whole
from tests.scripts import DEMO_SAM, FIRE
from tests.tiffs import write_tiff
from utils import Window

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_points")]

DATES = ("2018-06-14", "2018-10-02", "2019-03-11", "2019-06-20")
Run = Callable[..., int]


@pytest.fixture
def run_fire(data_root: Path, tmp_path: Path) -> Run:
    """Runs stages over one event, into `one` and `two`; returns the exit code."""

    def call(*flags: str) -> int:
        roots = ("--data-root", data_root, "--stage1-root", tmp_path / "one", "--stage2-root", tmp_path / "two")
        return run.main([*map(str, roots), "--event", FIRE, "--patch-size", "130", *DEMO_SAM, *flags])

    return call


def stage2_map(tmp_path: Path, name: str) -> np.ndarray:
    return whole(ScoreMap(tmp_path / "two" / FIRE / name))


def polygons(tmp_path: Path, layer: str = "regions") -> list[dict]:
    """The attributes of all features of a layer."""
    dataset = gdal.OpenEx(str(tmp_path / "two" / FIRE / config.REGIONS_NAME), gdal.OF_VECTOR)
    return [feature.ExportToJson(as_object=True)["properties"] for feature in dataset.GetLayer(layer)]


@pytest.mark.usefixtures("small_windows")
def test_an_explanation_agrees_with_the_anomaly_map(run_fire: Run, tmp_path: Path) -> None:
    assert run_fire() == 0
    plain = [stage2_map(tmp_path, name) for name in (config.ANOMALY_MAP_NAME, config.FILTERED_MAP_NAME)]
    plain_fields = polygons(tmp_path)
    assert "novelty" not in plain_fields[0]
    path = tmp_path / "two" / FIRE / config.EXPLANATION_NAME
    assert not path.exists()

    assert run_fire("--explain") == 0
    explained = [stage2_map(tmp_path, name) for name in (config.ANOMALY_MAP_NAME, config.FILTERED_MAP_NAME)]
    np.testing.assert_array_equal(explained, plain)
    explanation = ExplanationMap(path)
    assert explanation.dates == DATES
    assert read_parameters(path) == read_parameters(tmp_path / "two" / FIRE / config.ANOMALY_MAP_NAME)
    values = whole(explanation)
    in_region = values.any(axis=2)
    assert in_region.any()
    assert (values != NOT_COMPARED).all()
    np.testing.assert_allclose(np.where(in_region, 1 - values[..., :4].max(axis=2), 0), explained[0], atol=1e-6)
    fields = polygons(tmp_path)
    for before, after in zip(plain_fields, fields, strict=True):
        assert before.items() <= after.items()
        assert after["novelty"] == pytest.approx(after["mean_score"] - after["usual_score"])
    rows = polygons(tmp_path, "region_dates")
    assert [row["date"] for row in rows] == list(DATES) * len(fields)
    best = max(rows[:4], key=lambda row: row["similarity"])
    assert (fields[0]["most_similar_date"], fields[0]["similarity"]) == (best["date"], best["similarity"])


def test_maps_without_an_explanation_are_made_again_and_then_skipped(
    run_fire: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_fire() == 0
    caplog.clear()
    assert run_fire("--explain", "--skip-existing-stage2") == 0
    assert "is computed again, because it has no current explanation (--explain)" in caplog.text
    assert "its anomaly map exists" not in caplog.text
    path = tmp_path / "two" / FIRE / config.EXPLANATION_NAME
    written = path.stat().st_mtime_ns
    for flags in (("--explain",), ()):  # without the flag, an explanation is kept, also that of the polygons
        caplog.clear()
        (tmp_path / "two" / FIRE / config.REGIONS_NAME).unlink()
        assert run_fire(*flags, "--skip-existing-stage2") == 0
        assert "its anomaly map exists" in caplog.text
        assert path.stat().st_mtime_ns == written
        assert "novelty" in polygons(tmp_path)[0]
    caplog.clear()
    path.write_bytes(path.read_bytes()[:-1000])
    assert run_fire("--explain", "--skip-existing-stage2") == 0
    assert "recomputing it" in caplog.text
    assert whole(ExplanationMap(path)).any()
    assert run_fire() == 0  # an explanation that fits the maps is kept
    assert "novelty" in polygons(tmp_path)[0]
    assert run_fire("--overlap", "10") == 0
    assert not path.exists()
    assert "novelty" not in polygons(tmp_path)[0]


def mask_all_but_the_upper_rows(path: Path) -> None:
    """Write an image again, with data in its upper 100 of 256 rows only."""
    values = GeoTiff(path).read_bands([1, 2, 3], Window(0, 0, 256, 256))
    values[100:] = 0
    write_tiff(path, values, nodata=0)


def test_dates_without_data_are_not_compared(run_fire: Run, data_root: Path, tmp_path: Path) -> None:
    for name in ("normal_20180614.tif", "normal_20181002.tif", "normal_20190311.tif"):
        mask_all_but_the_upper_rows(data_root / FIRE / name)
    assert run_fire("--explain") == 0
    values = whole(ExplanationMap(tmp_path / "two" / FIRE / config.EXPLANATION_NAME))
    in_region = values.any(axis=2)
    assert (values[in_region][:, 3] != NOT_COMPARED).all()  # the reference image
    alone = (values[..., :3] == NOT_COMPARED).all(axis=2)
    assert alone.any()
    assert (values[alone][:, 4] == NOT_COMPARED).all()  # one date has no usual score


def test_one_date_has_no_usual_score(run_fire: Run, data_root: Path, tmp_path: Path) -> None:
    for path in sorted((data_root / FIRE).glob("normal_*"))[:-1]:
        path.unlink()
    assert run_fire("--explain") == 0
    (field, *_) = polygons(tmp_path)
    assert field["most_similar_date"] == DATES[-1]
    assert field["usual_score"] is None
    assert field["novelty"] is None


def test_geojson_has_the_polygons_in_degrees_and_follows_the_flags(
    run_fire: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "two" / FIRE / config.REGIONS_GEOJSON_NAME
    assert run_fire("--geojson", "--simplify", "3") == 0
    features = json.loads(path.read_text())["features"]
    assert [one["properties"] for one in features] == polygons(tmp_path)
    longitude, latitude = np.array(features[0]["geometry"]["coordinates"][0]).reshape(-1, 2)[0]
    assert (longitude, latitude) == (pytest.approx(15, abs=0.1), pytest.approx(42, abs=0.1))
    caplog.clear()
    path.unlink()
    assert run_fire("--geojson", "--simplify", "3", "--skip-existing-stage2") == 0
    assert "preview and polygons are written again" in caplog.text
    assert path.exists()
    assert run_fire("--skip-existing-stage2") == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--overlap", "66"), "argument --overlap: 66 is above 65, half of the smallest window"),
        (("--overlap", "-1"), "-1: needs a whole number, 0 or more"),
        (("--tolerance", "9"), "9: needs a whole number from 0 to 8"),
        (("--simplify", "-1"), "-1: needs a number, 0 or more"),
        (("--simplify", "nan"), "nan: needs a number, 0 or more"),
    ],
)
def test_impossible_values_are_refused(
    run_fire: Run, capsys: pytest.CaptureFixture[str], flags: tuple[str, str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_fire(*flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
