"""The scripts on data roots as users have them: labels of all kinds, other formats, folders that are no events."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from osgeo import gdal

from report.event_report import slug
from tests.report.test_report import page_data
from tests.scripts import CONTROL, DEMO_SAM, FEW_POINTS, FIRE, run_process
from tests.tiffs import write_png, write_tiff

LABEL = "anomaly_20210720_label.tif"
FOLDERS = "3 folders are no events: 10_x, 7_new, old (names begin with 0_ to 6_)"
FILES = "2 loose files are ignored: a.tif, notes.txt (images lie in one folder per event)"
CONVERT = "only GeoTIFFs are read, convert each image (gdal_translate FILE out.tif)"

# How a folder's label, an array, is written.
Writer = Callable[[Path, np.ndarray], object]


def png_with_side_files(path: Path, label: np.ndarray) -> None:
    write_png(path / "anomaly_20210720_label.png", label)
    (path / "anomaly_20210720_label.pgw").write_text("1\n0\n0\n-1\n0\n0\n")
    (path / "anomaly_20210720_label.png.aux.xml").write_text(
        "<PAMDataset><GeoTransform>1, 2, 0, 3, 0, -2</GeoTransform></PAMDataset>"
    )


def two_labels(path: Path, label: np.ndarray) -> None:
    write_png(path / "anomaly_20210720_label.png", label)
    write_tiff(path / LABEL, label)


LABELS: dict[str, Writer] = {
    "4_as_published": lambda path, label: write_tiff(path / LABEL, label),
    "4_name_goes_on": lambda path, label: write_tiff(path / "anomaly_20210720_label_v2.tif", label),
    "4_plural": lambda path, label: write_tiff(path / "anomaly_20210720_labels.tif", label),
    "4_float": lambda path, label: write_tiff(path / LABEL, label.astype(np.float32)),
    "4_png": png_with_side_files,
    "4_palette": lambda path, label: write_png(path / "anomaly_20210720_Label.PNG", label, palette=True),
}
REFUSED: dict[str, tuple[Writer, str]] = {
    "4_probabilities": (
        lambda path, label: write_tiff(path / LABEL, label.astype(np.float32) / 4),
        f"{LABEL}: the value 0.5 is not whole",
    ),
    "4_rgb": (
        lambda path, label: write_png(path / "anomaly_20210720_label.png", np.dstack([label] * 3)),
        "anomaly_20210720_label.png: 3 band(s) of uint8; a label is one band of whole numbers",
    ),
    "4_small": (
        lambda path, label: write_png(path / "anomaly_20210720_label.png", label[:100]),
        "sizes differ (256 x 100 and 256 x 256); a PNG label has the monitor image's size",
    ),
    "4_two_labels": (
        two_labels,
        f"has 1 and 2: anomaly_20210720.tif, anomaly_20210720_label.png, {LABEL}",
    ),
}


@pytest.fixture(scope="module")
def labelled(
    small_events: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, ...]]:
    """The flags of the roots of copies of one finished event, with labels of all kinds, by script."""
    root = tmp_path_factory.mktemp("labelled")
    label = gdal.Open(str(small_events / FIRE / LABEL)).ReadAsArray()
    assert set(np.unique(label)) == {0, 2}
    for name, write in (LABELS | {name: write for name, (write, _) in REFUSED.items()}).items():
        shutil.copytree(small_events / FIRE, root / "data" / name, ignore=lambda *_: [LABEL])
        write(root / "data" / name, label)
        for stage in ("stage1", "stage2"):
            shutil.copytree(finished / stage / FIRE, root / stage / name)
    roots = ("--data-root", root / "data", "--result-root", root / "stage2")
    return {"run_eval.py": roots, "run_report.py": (*roots, "--stage1-root", root / "stage1")}


def outcome_of_labels(done: CompletedProcess[str]) -> None:
    """Check the summary of a script that reads labels."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{len(LABELS)} done, 1 skipped, {len(REFUSED) - 1} failed" in done.stderr
    for name, (_, reason) in REFUSED.items():
        (line,) = [
            line for line in done.stderr.splitlines() if line.startswith((f"error: {name}: ", f"  skipped {name}"))
        ]
        assert reason in line


def test_labels_of_all_kinds_are_evaluated_alike(labelled: dict[str, tuple[object, ...]], tmp_path: Path) -> None:
    table, plots = tmp_path / "table.csv", tmp_path / "plots"
    done = run_process("run_eval.py", *labelled["run_eval.py"], "--output-csv", table, "--plots", plots)
    outcome_of_labels(done)
    with open(table, newline="", encoding="utf-8") as file:
        scores = {name: values for name, *values in list(csv.reader(file))[1:]}
    assert set(scores) == set(LABELS)
    assert all(values == scores["4_as_published"] for values in scores.values())
    assert float(scores["4_as_published"][0]) > 0
    assert list(plots.iterdir())


def test_labels_of_all_kinds_are_reported_alike(labelled: dict[str, tuple[object, ...]], tmp_path: Path) -> None:
    done = run_process("run_report.py", *labelled["run_report.py"], "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(LABELS) + len(REFUSED) - 1} done, 1 skipped, 0 failed" in done.stderr
    for name, (_, reason) in REFUSED.items():
        (line,) = [
            line for line in done.stderr.splitlines() if line.startswith((f"warning: {name}", f"  skipped {name}"))
        ]
        assert reason in line
    shown = [page_data(tmp_path / "events" / f"{slug(name)}.html") for name in LABELS]
    assert shown[0]["label"]
    assert all(data["label"] == shown[0]["label"] for data in shown)


def test_a_figure_shows_a_png_label(labelled: dict[str, tuple[object, ...]], tmp_path: Path) -> None:
    target = tmp_path / "figure.png"
    done = run_process("run_report.py", *labelled["run_report.py"], "--figure", "4_png", target)
    assert done.returncode == 0, done.stderr
    assert target.stat().st_size


@pytest.fixture(scope="module")
def crowded(small_events: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, a data root that holds more than events, and the finished outputs of its events."""
    root = tmp_path_factory.mktemp("crowded")
    data = Path(shutil.copytree(small_events, root / "data"))
    for stage in ("stage1", "stage2"):
        shutil.copytree(finished / stage, root / stage)
    for folder in ("7_new", "10_x", "old", ".hidden"):
        (data / folder).mkdir()
    for file in ("a.tif", "notes.txt", ".DS_Store"):
        (data / file).touch()
    (data / CONTROL / "anomaly_20210720.tif").touch()
    (data / FIRE / "normal_20170101.jp2").touch()
    (data / "1_not_converted").mkdir()
    for file in ("anomaly_2.png", "normal_1.jp2"):
        (data / "1_not_converted" / file).touch()
    return root


SCRIPTS = {
    "run.py": ("--stage1-root", "stage1", "--stage2-root", "stage2", "--skip-existing-stage2"),
    "run_stage1.py": ("--output-root", "stage1"),
    "run_stage2.py": ("--stage1-root", "stage1", "--output-root", "stage2", "--skip-existing"),
    "run_eval.py": ("--result-root", "stage2"),
    "run_report.py": ("--stage1-root", "stage1", "--result-root", "stage2", "--output", "report"),
}


def run_in(root: Path, script: str, *more: str) -> CompletedProcess[str]:
    """Run a script with its folders in `root`; the stages are skipped, since their maps exist."""
    flags = [str(root / flag) if not flag.startswith("--") else flag for flag in SCRIPTS[script]]
    model = () if script in ("run_eval.py", "run_report.py") else DEMO_SAM
    return run_process(script, "--data-root", root / "data", *flags, *model, *more, **FEW_POINTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_summary_names_what_is_ignored(crowded: Path, script: str) -> None:
    done = run_in(crowded, script)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [lines.count(f"  {line}") for line in (FOLDERS, FILES)] == [1, 1]
    (reason,) = [line for line in lines if line.startswith("  skipped 1_not_converted: ")]
    assert reason.endswith(f"found anomaly_2.png, normal_1.jp2: {CONVERT}")
    ignored = crowded / "data" / CONTROL / "anomaly_20210720.tif"
    assert f"warning: {ignored}: ignored, a normal control has only images that begin with normal_" in lines
    folder = crowded / "data" / FIRE
    assert f"warning: {folder}: ignored normal_20170101.jp2: {CONVERT}" in lines


@pytest.mark.parametrize("script", ["run.py", "run_stage1.py", "run_stage2.py"])
def test_a_dry_run_ends_with_what_is_ignored(crowded: Path, script: str) -> None:
    done = run_in(crowded, script, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [FOLDERS, FILES]
    assert "found anomaly_2.png, normal_1.jp2: only GeoTIFFs" in done.stdout


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("run.py", ("--event", CONTROL)),
        ("run.py", ("--event", CONTROL, "--dry-run")),
        ("run_report.py", ("--event", CONTROL)),
    ],
)
def test_a_run_of_one_event_names_nothing_else(crowded: Path, script: str, flags: tuple[str, ...]) -> None:
    done = run_in(crowded, script, *flags)
    assert done.returncode == 0, done.stderr
    assert "no events" not in done.stdout + done.stderr
    assert "loose files" not in done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_data_root_without_events_is_wrong_usage(tmp_path: Path, script: str) -> None:
    (tmp_path / "data" / "7_new").mkdir(parents=True)
    (tmp_path / "data" / "a.tif").touch()
    done = run_in(tmp_path, script)
    assert done.returncode == 2
    assert "no event folders (names beginning with 0_ to 6_)" in done.stderr.splitlines()[-1]
