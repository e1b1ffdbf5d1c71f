"""run_eval.py with every flag."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import config
import run_eval
from evaluation.tables import CSV_COLUMNS
from img_io import open_label
from rasters.cog import write_raster
from rasters.geotiff import Georeference, GeoTiff
from tests.helpers import whole
from tests.scripts import CONTROL, FIRE, run_process
from utils import read_event


def evaluate(data: Path, results: Path, *flags: object) -> int:
    return run_eval.main([*map(str, ("--data-root", data, "--result-root", results / "stage2", *flags))])


def read_table(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_evaluation_prints_blocks_and_averages_and_writes_the_table(
    finished: Path, small_events: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    roots = ("--data-root", small_events, "--result-root", finished / "stage2")
    done = run_process("run_eval.py", *roots, "--output-csv", table)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == FIRE
    assert lines[1].startswith("  Stage1  recall=")
    assert lines[2].startswith("  Stage2  recall=")
    assert "Average of 4_ fire (1 event)" in lines
    assert "Average of all categories (1 event)" in lines
    assert f"skipped {CONTROL}: a normal control" in done.stderr
    header, row = read_table(table)
    assert header == list(CSV_COLUMNS)
    assert row[0] == FIRE


@pytest.mark.parametrize(
    ("flags", "stage1_line", "stage2_line"),
    [
        ((), "recall=0.5500  precision=1.0000  F1=0.7097", "recall=1.0000  precision=0.9524  F1=0.9756"),
        (("--quantile-threshold", 0.89), "recall=1.0000  precision=0.9901", "recall=1.0000"),
        (("--stage2-threshold", 0.3), "recall=0.5500", "recall=1.0000  precision=1.0000"),
        (("--stage2-threshold", 0.6), "recall=0.5500", "recall=0.0000"),
        (("--stage2-threshold", 0.6, "--normalize-anomaly-map"), "recall=0.5500", "recall=1.0000"),
        (("--area-ratio", 0.06), "recall=0.5500", "recall=1.0000  precision=1.0000"),
        (("--background-weight", 1), "recall=0.5500", "recall=1.0000  precision=0.6667"),
        (("--background-weight", 2), "recall=0.5500", "recall=1.0000  precision=0.5000"),
        (("--background-weight", 0), "recall=0.5500", "recall=1.0000  precision=1.0000"),
        (("--area-ratio", 1.5), "recall=0.5500", "recall=0.0000  precision=0.0000  F1=0.0000"),
        (("--area-ratio", 1e308), "recall=0.5500", "recall=0.0000"),
        (("--area-ratio", 0), "recall=0.5500", "recall=1.0000  precision=0.9524"),
        (("--stage2-threshold", 1.5), "recall=0.5500", "recall=0.0000"),
    ],
)
def test_evaluation_flags_change_the_scores(
    data_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[object, ...],
    stage1_line: str,
    stage2_line: str,
) -> None:
    label = np.ones((200, 200), np.uint8)
    label[:20] = 2  # a tenth of the image is anomalous, value 1 is background
    changes = np.repeat(np.linspace(1, 0, 200, dtype=np.float32)[:, None], 200, axis=1)
    anomalies = np.where(label == 2, np.float32(0.5), np.float32(0))
    anomalies[100:110] = 0.1  # a twentieth of the image: a false alarm
    for path in (data_root / FIRE).iterdir():
        is_label = path.stem.endswith("label")
        write_raster(path, label if is_label else np.zeros((200, 200, 3), np.uint8), Georeference())
    write_maps(tmp_path / "stage2" / FIRE, changes, anomalies)
    assert evaluate(data_root, tmp_path, *flags) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"  Stage1  {stage1_line}" in printed[1]
    assert f"  Stage2  {stage2_line}" in printed[2]


def write_maps(folder: Path, filtered: np.ndarray, anomalies: np.ndarray) -> None:
    for name, values in ((config.FILTERED_MAP_NAME, filtered), (config.ANOMALY_MAP_NAME, anomalies)):
        write_raster(folder / name, values, Georeference())


def test_objects_and_normal_controls_follow_the_published_scores(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of the label, 256 x 256, two objects remain; the map finds one of them, and flags a second object beside it.
    label_path = data_root / FIRE / "anomaly_20210720_label.tif"
    label = np.zeros((256, 256), np.uint8)
    label[10:50, 10:50] = label[100:140, 100:140] = 255
    anomalies = np.zeros((256, 256), np.float32)
    anomalies[10:50, 10:30] = 0.5
    anomalies[200:240, 200:240] = 0.2
    georeference = GeoTiff(label_path).georeference
    write_raster(label_path, label, georeference)
    for event in (FIRE, CONTROL):
        for name in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME):
            write_raster(tmp_path / "stage2" / event / name, anomalies, georeference)
    files = ("--output-csv", tmp_path / "table.csv", "--output-json", tmp_path / "report.json")
    assert evaluate(data_root, tmp_path, *files) == 0
    published = capsys.readouterr().out
    (row,) = read_table(tmp_path / "table.csv")[1:]
    assert evaluate(data_root, tmp_path, "--objects", *files) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(published)
    per_km2 = 1e6 / (256 * 256 * 0.5**2)
    added = printed.removeprefix(published).splitlines()
    assert added[:2] == ["Per object (from 0.2 of it) and unweighted", FIRE]
    assert added[4:] == [
        "  Stage2  objects  recall=0.5000  precision=0.5000  F1=0.5000  found 1 of 2, right 1 of 2, 1 false alarm "
        f"({per_km2:.3g} per km2)",
        # Above 0.2: a quarter of the label, all right; from 0.2 on: a third is right; from 0 on: everything.
        f"          pixels   recall=0.2500  precision=0.3333  F1=0.2857  average precision="
        f"{0.25 + 0.75 * 3200 / 256**2:.4f}",
        f"Normal control {CONTROL}: 2 false alarms ({2 * per_km2:.3g} per km2)",
    ]
    header, objects = read_table(tmp_path / "table.csv")
    assert objects[:7] == row
    assert float(objects[header.index("stage2_object_recall")]) == 0.5
    assert float(objects[header.index("stage2_unweighted_precision")]) == pytest.approx(1 / 3)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["events"][0]["stage2"]["object_precision"] == 0.5
    assert [control["false_alarms"] for control in report["normal_controls"]] == [2]
    assert evaluate(data_root, tmp_path, "--objects", "0.6") == 0
    assert "found 0 of 2, right 1 of 2" in capsys.readouterr().out


def test_the_map_of_another_method_is_evaluated(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label_path = data_root / FIRE / "anomaly_20210720_label.tif"
    truth = whole(open_label(read_event(data_root / FIRE))) > 1
    write_raster(tmp_path / "stage2" / FIRE / "mine.tif", truth.astype(np.float32), GeoTiff(label_path).georeference)
    assert evaluate(data_root, tmp_path) == 1
    assert evaluate(data_root, tmp_path, "--map-name", "mine.tif", "--stage2-threshold", 0.5) == 0
    assert "Stage2  recall=1.0000  precision=0.999" in capsys.readouterr().out
    assert evaluate(data_root, tmp_path, "--map-name", "theirs.tif") == 1


@pytest.mark.parametrize(("threshold", "recall"), [(1.2, 1.0), (1.5, 0.0)])
def test_a_threshold_above_1_is_compared_with_the_scores(
    small_events: Path, tmp_path: Path, threshold: float, recall: float
) -> None:
    """An anomaly score can be up to 2."""
    scores = np.full((256, 256), 1.3, np.float32)
    write_maps(tmp_path / "stage2" / FIRE, scores, scores)
    roots = ("--data-root", small_events, "--result-root", tmp_path / "stage2", "--output-csv", tmp_path / "table.csv")
    done = run_process("run_eval.py", *roots, "--stage2-threshold", threshold, "--plots", tmp_path / "plots")
    assert done.returncode == 0, done.stderr
    assert float(read_table(tmp_path / "table.csv")[1][4]) == recall
    assert len(list((tmp_path / "plots").iterdir())) == 3


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--max-events", -3), "--max-events: -3: needs a whole number above 0"),
        (("--max-events", 0), "--max-events: 0: needs a whole number above 0"),
        (("--background-weight", -0.5), "--background-weight: -0.5: needs a number, 0 or more"),
        (("--area-ratio", -1), "--area-ratio: -1: needs a number, 0 or more"),
        (("--area-ratio", "inf"), "--area-ratio: inf: needs a number, 0 or more"),
        (("--stage2-threshold", "nan"), "--stage2-threshold: nan: needs a number"),
    ],
)
def test_numbers_out_of_range_end_with_exit_code_2(
    finished: Path, small_events: Path, tmp_path: Path, flags: tuple[object, ...], problem: str
) -> None:
    roots = ("--data-root", small_events, "--result-root", finished / "stage2", "--output-csv", tmp_path / "table.csv")
    done = run_process("run_eval.py", *roots, *flags)
    assert done.returncode == 2
    assert problem in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_settings_above_1_are_read_from_the_environment(finished: Path, small_events: Path, tmp_path: Path) -> None:
    tables = [tmp_path / "flags.csv", tmp_path / "environment.csv"]
    roots = ("--data-root", small_events, "--result-root", finished / "stage2", "--output-csv")
    by_flag = run_process("run_eval.py", *roots, tables[0], "--background-weight", 3, "--area-ratio", 2)
    environment = {"ANOMALYCD_EVAL_BACKGROUND_WEIGHT": "3", "ANOMALYCD_EVAL_AREA_RATIO": "2"}
    by_variable = run_process("run_eval.py", *roots, tables[1], **environment)
    assert by_flag.returncode == by_variable.returncode == 0, by_variable.stderr
    assert tables[0].read_text() == tables[1].read_text()
    assert read_table(tables[0])[1][4:] == ["0.0", "0.0", "0.0"]  # every part of stage 2 is dropped


def test_max_events_counts_normal_controls(finished: Path, small_events: Path, tmp_path: Path) -> None:
    assert evaluate(small_events, finished, "--max-events", 1, "--output-csv", tmp_path / "table.csv") == 1
    assert evaluate(small_events, finished, "--max-events", 2, "--output-csv", tmp_path / "table.csv") == 0
    assert [row[0] for row in read_table(tmp_path / "table.csv")[1:]] == [FIRE]


def test_evaluation_leaves_out_events_without_label(
    finished: Path, data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data_root / FIRE / "anomaly_20210720_label.tif").unlink()
    assert evaluate(data_root, finished) == 1
    assert "no label, not evaluated" in caplog.text


def test_evaluation_fails_events_without_maps(
    small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert evaluate(small_events, tmp_path) == 1
    assert f"{FIRE}: evaluation failed" in caplog.text
    assert "no stage 2 output for this event; run stage 2 first" in caplog.text
    assert not list(tmp_path.iterdir())


def test_evaluation_refuses_a_label_of_another_size(
    finished: Path, data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label = data_root / FIRE / "anomaly_20210720_label.tif"
    write_raster(label, np.zeros((50, 60), np.uint8), Georeference(None, None))
    assert evaluate(data_root, finished) == 1
    assert "sizes differ" in caplog.text


def test_suggested_thresholds_are_printed_and_no_file_changes(data_root: Path, tmp_path: Path) -> None:
    """In both maps, pixels scored 0.101 are flagged wrongly. 0.1 % of the control's pixels are 65.5."""
    label = np.ones((256, 256), np.uint8)
    label[:32] = 2
    write_raster(data_root / FIRE / "anomaly_20210720_label.tif", label, Georeference())
    event, control = np.zeros((2, 256, 256), np.float32)
    event[:32], event[100:110] = 0.5, 0.101
    control[50, 50:115], control[150, 50:115] = 0.5, 0.101
    write_maps(tmp_path / "stage2" / FIRE, event, event)
    write_maps(tmp_path / "stage2" / CONTROL, control, control)
    printed, tables, reports = [], [], []
    for flags in ((), ("--suggest-threshold",)):
        files = ("--output-csv", tmp_path / "table.csv", "--output-json", tmp_path / "report.json")
        done = run_process(
            "run_eval.py", "--data-root", data_root, "--result-root", tmp_path / "stage2", *files, *flags
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.splitlines())
        tables.append((tmp_path / "table.csv").read_bytes())
        reports.append(json.loads((tmp_path / "report.json").read_text(encoding="utf-8")))
    assert printed[1] == [
        *printed[0],
        "Threshold suggested by labelled events: 0.296 (middle of 0.104 to 0.488, where F1 of the averages is within "
        "0.01 of the best, 1.0000; labelled events: 1, too few to rely on: below 5)",
        "Threshold suggested by normal controls: 0.104 (lowest that flags at most 0.1 % of the pixels; flags 0.0992 %; "
        "normal controls: 1; pixels: 65536)",
    ]
    assert tables[0] == tables[1]
    assert [report["settings"].pop("suggest_threshold") for report in reports] == [False, True]
    for report in reports:
        del report["program"]  # has the time
    assert reports[0] == reports[1]
    assert {path.name for path in tmp_path.iterdir()} == {"data", "stage2", "table.csv", "report.json"}


def test_controls_alone_suggest_a_threshold(finished: Path, small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--result-root", finished / "stage2", "--output-csv", tmp_path / "table.csv")
    done = run_process("run_eval.py", *roots, "--max-events", 1, "--suggest-threshold")
    assert done.returncode == 1
    labelled, controls = done.stdout.splitlines()
    assert labelled == "Threshold suggested by labelled events: none, no labelled event was evaluated"
    assert controls.endswith("normal controls: 1; pixels: 65536)")
    assert "no event was evaluated" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
