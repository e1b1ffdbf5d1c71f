"""run_eval.py --plots and --output-json, as a user calls them."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import config
from eval_metrics import Scores
from evaluation.tables import CSV_COLUMNS, Result, write_csv
from report.plots import FILE_NAMES
from tests.report.test_figures import png_size
from tests.scripts import CONTROL, FIRE, run_process
from utils import Event, list_events


@pytest.fixture
def without_matplotlib(tmp_path: Path) -> dict[str, str]:
    """Environment variables with which `import matplotlib` fails as if it were not installed."""
    folder = tmp_path / "blocked"
    folder.mkdir()
    (folder / "matplotlib.py").write_text("raise ImportError('blocked')\n")
    return {"PYTHONPATH": str(folder)}


def test_plots_json_and_table_are_written(finished: Path, small_events: Path, tmp_path: Path) -> None:
    plots, report, table = tmp_path / "new" / "plots", tmp_path / "report.json", tmp_path / "table.csv"
    roots = ("--data-root", small_events, "--result-root", finished / "stage2")
    flags = ("--plots", plots, "--output-json", report, "--output-csv", table, "--stage2-threshold", 0.1)
    done = run_process("run_eval.py", *roots, *flags, ANOMALYCD_EVAL_CLOSING_RADIUS="2")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in plots.iterdir()} == set(FILE_NAMES)
    for path in plots.iterdir():
        assert png_size(path)[2] == pytest.approx(300, abs=0.1)
        assert path.name in done.stderr
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["program"]["ANOMALYCD_VERSION"] == config.VERSION
    settings = content["settings"]
    assert settings["stage2_threshold"] == 0.1
    assert settings["quantile_threshold"] == config.EVAL_QUANTILE_THRESH
    assert settings["eval_closing_radius"] == 2
    assert settings["data_root"] == str(small_events)
    assert content["config_overrides"] == {"EVAL_CLOSING_RADIUS": "2"}
    assert [event["event_name"] for event in content["events"]] == [FIRE]
    assert [one["event_name"] for one in content["skipped"]] == [CONTROL]
    assert content["failed"] == []
    (fire,) = content["averages_by_category"]
    assert (fire["category"], fire["name"], fire["events"]) == (4, "fire", 1)
    row = table.read_text(encoding="utf-8").splitlines()[1].split(",")
    event = content["events"][0]
    written = [event[stage][score] for stage in ("stage1", "stage2") for score in ("recall", "precision", "f1")]
    assert [repr(score) for score in written] == row[1:]
    assert content["average"]["stage2"] == fire["stage2"]
    assert FIRE in report.read_text(encoding="utf-8")  # names stay readable


def test_only_the_table_is_written_by_default(finished: Path, small_events: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    roots = ("--data-root", small_events, "--result-root", finished / "stage2")
    assert run_process("run_eval.py", *roots, "--output-csv", table).returncode == 0
    assert list(tmp_path.iterdir()) == [table]


def test_nothing_is_written_if_no_event_was_evaluated(finished: Path, small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--result-root", finished / "stage2", "--max-events", 1)
    flags = ("--output-csv", tmp_path / "table.csv", "--output-json", tmp_path / "report.json")
    done = run_process("run_eval.py", *roots, *flags, "--plots", tmp_path / "plots")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"  skipped {CONTROL}: a normal control, not evaluated" in done.stderr.splitlines()
    last = done.stderr.splitlines()[-1]
    assert last == ("error: no event was evaluated, so nothing is written: 0 failed, 1 skipped, for the reasons above")
    assert not list(tmp_path.iterdir())


def test_the_table_holds_scores_in_full_precision(tmp_path: Path) -> None:
    event = Event(tmp_path / "4_a,b", tmp_path / "monitor.tif", (tmp_path / "reference.tif",), None)
    third = Scores(1 / 3, 1e-7, 0.1 + 0.2)
    write_csv(tmp_path / "table.csv", [Result(event, third, Scores(1.0, 0.0, 1.0))])
    header, row, *rest = (tmp_path / "table.csv").read_bytes().split(b"\r\n")
    assert header == ",".join(CSV_COLUMNS).encode()
    assert row == b'"4_a,b",0.3333333333333333,1e-07,0.30000000000000004,1.0,0.0,1.0'
    assert rest == [b""]


@pytest.mark.parametrize("first", "=+-@")
def test_no_cell_of_the_table_is_a_formula(finished: Path, small_events: Path, tmp_path: Path, first: str) -> None:
    """Spreadsheet programs run cells that begin with these characters; names of events begin with their category."""
    data = Path(shutil.copytree(small_events, tmp_path / "data"))
    shutil.copytree(data / FIRE, data / f"{first}4_fire")
    assert {event.name for event in list_events(data).events} == {FIRE, CONTROL}
    table = tmp_path / "table.csv"
    roots = ("--data-root", data, "--result-root", finished / "stage2")
    assert run_process("run_eval.py", *roots, "--output-csv", table).returncode == 0
    with open(table, newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert len(cells) == 2 * len(CSV_COLUMNS)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_missing_matplotlib_is_reported_before_the_evaluation(
    finished: Path, small_events: Path, tmp_path: Path, without_matplotlib: dict[str, str]
) -> None:
    roots = ("--data-root", small_events, "--result-root", finished / "stage2", "--output-csv", tmp_path / "table.csv")
    done = run_process("run_eval.py", *roots, "--plots", tmp_path / "plots", **without_matplotlib)
    assert done.returncode == 2
    assert done.stderr == "error: figures need matplotlib: pip install -r requirements-report.txt\n"
    assert not (tmp_path / "table.csv").exists()
    done = run_process("run_eval.py", *roots, "--output-json", tmp_path / "report.json", **without_matplotlib)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flag", ["--plots", "--output-json"])
def test_an_unwritable_path_is_reported_in_one_line(
    finished: Path, small_events: Path, tmp_path: Path, flag: str
) -> None:
    (tmp_path / "file").touch()
    roots = ("--data-root", small_events, "--result-root", finished / "stage2", "--output-csv", tmp_path / "table.csv")
    done = run_process("run_eval.py", *roots, flag, tmp_path / "file" / "inside")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path / 'file'}")
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_reported_in_one_line(
    finished: Path, small_events: Path, small_disk: Path, tmp_path: Path
) -> None:
    (small_disk / "filler").write_bytes(bytes(1020 << 10))
    roots = ("--data-root", small_events, "--result-root", finished / "stage2", "--output-csv", tmp_path / "table.csv")
    done = run_process("run_eval.py", *roots, "--plots", small_disk)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(": No space left on device")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
