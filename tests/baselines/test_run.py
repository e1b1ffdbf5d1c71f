"""`python -m baselines.run`: maps that the evaluation and the report read."""

from pathlib import Path

import numpy as np
import pytest

import config
from baselines import run
from rasters.maps import ScoreMap, read_parameters
from tests.helpers import whole
from tests.scripts import CONTROL, DEMO_SAM, FEW_POINTS, FIRE, run_process

NAMES = (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME)


@pytest.mark.parametrize("method", run.METHODS)
def test_every_method_writes_maps_that_are_evaluated(method: str, small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--result-root", tmp_path / "results")
    done = run_process("-mbaselines.run", method, *roots, *DEMO_SAM, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert f"{method}: 2 done, 0 skipped, 0 failed" in done.stderr
    for event in (FIRE, CONTROL):
        for name in NAMES:
            path = tmp_path / "results" / event / name
            scores = whole(ScoreMap(path))
            assert scores.shape == (256, 256)
            assert 0 <= np.nanmin(scores) <= np.nanmax(scores) <= 1
            parameters = read_parameters(path)
            assert parameters is not None
            assert parameters["method"] == method
            assert parameters.get("points_per_side") == (4 if method == "anychange" else None)
    first, second = (whole(ScoreMap(tmp_path / "results" / FIRE / name)) for name in NAMES)
    assert (first == second).all() == (method != "min-over-dates")
    assert (second <= first + 1e-6).mean() > 0.5
    done = run_process("run_eval.py", *roots, "--stage2-threshold", 0.5, "--objects")
    assert done.returncode == 0, done.stderr
    assert f"Normal control {CONTROL}: " in done.stdout


def test_a_report_shows_the_maps(small_events: Path, tmp_path: Path) -> None:
    assert run.main(["cva", "--data-root", str(small_events), "--result-root", str(tmp_path / "results")]) == 0
    roots = ("--data-root", small_events, "--result-root", tmp_path / "results", "--stage1-root", tmp_path / "none")
    done = run_process(
        "run_report.py", *roots, "--output", tmp_path / "report", ANOMALYCD_EVAL_STAGE2_FIXED_THRESH="0.5"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "index.html").exists()


def test_current_maps_are_kept_and_others_replaced(
    data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["--data-root", str(data_root), "--event", FIRE, "--result-root", str(tmp_path / "results")]
    assert run.main(["cva", *arguments]) == 0
    assert run.main(["cva", *arguments]) == 0
    assert "its maps exist" in caplog.text
    caplog.clear()
    assert run.main(["pca-kmeans", *arguments]) == 0
    assert "pca-kmeans: 1 done" in caplog.text


def test_one_bad_event_does_not_stop_the_others(data_root: Path, tmp_path: Path) -> None:
    (data_root / FIRE / "anomaly_20210720.tif").write_bytes(b"II*\0")
    assert run.main(["cva", "--data-root", str(data_root), "--result-root", str(tmp_path / "results")]) == 1
    assert {path.parent.name for path in (tmp_path / "results").rglob("*.tif")} == {CONTROL}


def test_an_unknown_method_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main(["magic"])
    assert stopped.value.code == 2
    assert "invalid choice: 'magic'" in capsys.readouterr().err
