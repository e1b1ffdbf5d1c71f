"""Every script and flag on small events, as processes where it matters and through `main` where it does not."""

import csv
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import config
import quick_test
import run
import run_eval
import run_stage1
import run_stage2
from demo.make_events import DemoEvent, write_event
from img_io import Georeference, open_event, read_map, write_raster
from tests.scripts import DEMO_SAM, FEW_POINTS, PROJECT, command, run_process
from utils import list_events

FIRE = "4_火灾_kleiner Brand"
CONTROL = "0_control"


@pytest.fixture(scope="session")
def small_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a labelled event, whose name is not ASCII, and a normal control; 256 pixels each."""
    root = tmp_path_factory.mktemp("small_events")
    for name in (FIRE, CONTROL):
        write_event(root, DemoEvent(name, seed=4), size=256)
    return root


@pytest.fixture
def data_root(small_events: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(small_events, tmp_path / "data"))


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.STAGE1_SAM_PARAMS, "points_per_side", 4)


@pytest.fixture(scope="session")
def finished(small_events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `stage1` and `stage2`, as `python run.py` leaves it for both events."""
    root = tmp_path_factory.mktemp("finished")
    roots = ("--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    done = run_process("run.py", "--stage", "all", "--data-root", small_events, *roots, *DEMO_SAM, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert "config: STAGE1_SAM_PARAMS" in done.stderr
    assert "stage 1: 2 done, 0 skipped, 0 failed" in done.stderr
    assert "stage 2: 2 done, 0 skipped, 0 failed" in done.stderr
    return root


def stage1(data: Path, output: Path, *flags: object) -> int:
    return run_stage1.main([*map(str, ("--data-root", data, "--output-root", output, *flags)), *DEMO_SAM])


def stage2(data: Path, results: Path, output: Path, *flags: object) -> int:
    roots = ("--data-root", data, "--stage1-root", results / "stage1", "--output-root", output)
    return run_stage2.main([*map(str, (*roots, *flags)), *DEMO_SAM])


def messages(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "anomalycd")


SAM_FLAGS = {"--device": "cuda:0", "--sam-checkpoint": "sam_vit_b_01ec64.pth", "--sam-model-type": "vit_b"}
DATA_FLAGS = {"--data-root": "data/GDL", "--event": "all of them"}


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (
            "run.py",
            {
                "--stage": "all",
                "--stage1-root": "stage1_change_detection",
                "--stage2-root": "stage2_anomaly_change",
                "--no-skip-existing-stage1": "skip",
                "--patch-size": "2048",
                "--skip-existing-stage2": "recompute",
            }
            | DATA_FLAGS
            | SAM_FLAGS,
        ),
        (
            "run_stage1.py",
            {"--output-root": "stage1_change_detection", "--patch-size": "2048", "--skip-existing": "skip"}
            | DATA_FLAGS
            | SAM_FLAGS,
        ),
        (
            "run_stage2.py",
            {
                "--stage1-root": "stage1_change_detection",
                "--output-root": "stage2_anomaly_change",
                "--skip-existing": "recompute",
            }
            | DATA_FLAGS
            | SAM_FLAGS,
        ),
        (
            "run_eval.py",
            {
                "--data-root": "data/GDL",
                "--result-root": "stage2_anomaly_change",
                "--max-events": "80",
                "--quantile-threshold": "0.945",
                "--stage2-threshold": "0.08",
                "--area-ratio": "0.0003",
                "--background-weight": "0.1",
                "--normalize-anomaly-map": "as it is",
                "--output-csv": "evaluation.csv",
            },
        ),
        ("quick_test.py", DATA_FLAGS | SAM_FLAGS),
    ],
)
def test_help_shows_every_flag_with_its_default(script: str, flags: dict[str, str]) -> None:
    shown = run_process(script, "--help")
    assert shown.returncode == 0, shown.stderr
    options = "".join(shown.stdout.partition("options:")[2].split())  # help wraps anywhere, also inside a path
    for flag, default in flags.items():
        described = options.split(flag, 1)[1].split("(default:", 1)[1].split(")")[0]
        assert default.replace(" ", "") in described


def test_run_writes_the_published_files(finished: Path) -> None:
    for name in (FIRE, CONTROL):
        files = {str(path.relative_to(finished)) for path in finished.glob(f"*/{name}/*")}
        assert files == {
            f"stage1/{name}/change_map_binary.png",
            f"stage1/{name}/change_map_continuous.tif",
            f"stage2/{name}/AnomalyCD_map.png",
            f"stage2/{name}/AnomalyCD_map.tif",
            f"stage2/{name}/change_map_filtered.tif",
        }


def test_the_same_run_gives_the_same_maps(finished: Path, small_events: Path, tmp_path: Path) -> None:
    assert stage1(small_events, tmp_path / "stage1", "--event", FIRE) == 0
    assert stage2(small_events, tmp_path, tmp_path / "stage2", "--event", FIRE) == 0
    for file in (f"stage1/{FIRE}/{config.CHANGE_MAP_NAME}", f"stage2/{FIRE}/{config.ANOMALY_MAP_NAME}"):
        np.testing.assert_array_equal(read_map(tmp_path / file), read_map(finished / file))


def test_stage1_skips_what_exists_unless_told_otherwise(
    finished: Path, small_events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = finished / "stage1" / FIRE / config.CHANGE_MAP_NAME
    before = written.stat().st_mtime_ns
    assert stage1(small_events, finished / "stage1", "--event", FIRE, "--skip-existing") == 0
    assert "its change map exists" in messages(caplog)
    assert written.stat().st_mtime_ns == before
    assert stage1(small_events, finished / "stage1", "--event", FIRE, "--no-skip-existing") == 0
    assert written.stat().st_mtime_ns > before


def test_stage1_makes_a_map_again_when_its_parameters_change(
    small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert stage1(small_events, tmp_path, "--event", FIRE, "--patch-size", 128) == 0
    first = read_map(tmp_path / FIRE / config.CHANGE_MAP_NAME)
    assert stage1(small_events, tmp_path, "--event", FIRE, "--patch-size", 256) == 0
    assert "made with another patch_size" in messages(caplog)
    assert (read_map(tmp_path / FIRE / config.CHANGE_MAP_NAME) != first).any()


def test_stage1_makes_a_truncated_map_again(small_events: Path, tmp_path: Path) -> None:
    assert stage1(small_events, tmp_path, "--event", FIRE) == 0
    path = tmp_path / FIRE / config.CHANGE_MAP_NAME
    whole = read_map(path)
    os.truncate(path, path.stat().st_size // 2)
    assert stage1(small_events, tmp_path, "--event", FIRE) == 0
    np.testing.assert_array_equal(read_map(path), whole)


def test_stage2_recomputes_unless_told_otherwise(
    finished: Path, small_events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = finished / "stage2" / FIRE / config.ANOMALY_MAP_NAME
    before = written.stat().st_mtime_ns
    assert stage2(small_events, finished, finished / "stage2", "--event", FIRE) == 0
    after = written.stat().st_mtime_ns
    assert after > before
    assert stage2(small_events, finished, finished / "stage2", "--event", FIRE, "--skip-existing") == 0
    assert "its anomaly map exists" in messages(caplog)
    assert written.stat().st_mtime_ns == after


def test_stage2_without_stage1_says_so_and_goes_on(
    finished: Path, small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished / "stage1" / FIRE, tmp_path / "stage1" / FIRE)
    assert stage2(small_events, tmp_path, tmp_path / "stage2") == 1
    assert f"{CONTROL}: stage 2 failed" in messages(caplog)
    assert "run stage 1 first" in messages(caplog)
    assert (tmp_path / "stage2" / FIRE / config.ANOMALY_MAP_NAME).exists()


def test_stage2_warns_of_a_map_made_with_other_weights(
    finished: Path, small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "stage1" / FIRE / config.CHANGE_MAP_NAME
    changes = read_map(finished / "stage1" / FIRE / config.CHANGE_MAP_NAME)
    write_raster(path, changes, Georeference(None, None), {"sam_model_type": "vit_b"})
    assert stage2(small_events, tmp_path, tmp_path / "stage2", "--event", FIRE) == 0
    assert "made with other SAM weights" in messages(caplog)


def test_stage2_refuses_a_map_of_another_size(
    small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "stage1" / FIRE / config.CHANGE_MAP_NAME
    write_raster(path, np.zeros((100, 90), np.float32), Georeference(None, None))
    assert stage2(small_events, tmp_path, tmp_path / "stage2", "--event", FIRE) == 1
    assert "sizes differ, 90 x 100 and 256 x 256" in messages(caplog)


def test_one_bad_event_does_not_stop_the_others(
    data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = data_root / CONTROL / "normal_20210720.tif"
    os.truncate(monitor, monitor.stat().st_size // 3)
    assert stage1(data_root, tmp_path / "stage1") == 1
    assert (tmp_path / "stage1" / FIRE / config.CHANGE_MAP_NAME).exists()
    assert not (tmp_path / "stage1" / CONTROL).exists()
    assert str(monitor) in messages(caplog)
    assert "1 done, 0 skipped, 1 failed" in messages(caplog)


def test_run_passes_its_flags_to_the_stages(data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    roots = ["--data-root", data_root, "--stage1-root", tmp_path / "one", "--stage2-root", tmp_path / "two"]
    common = [*map(str, roots), "--event", FIRE, "--patch-size", "128", *DEMO_SAM]
    assert run.main(["--stage", "1", *common]) == 0
    assert not (tmp_path / "two").exists()
    assert run.main(["--stage", "2", *common]) == 0
    assert run.main([*common, "--skip-existing-stage2"]) == 0
    assert "its change map exists" in messages(caplog)
    assert "its anomaly map exists" in messages(caplog)
    caplog.clear()
    assert run.main([*common, "--no-skip-existing-stage1"]) == 0
    assert "exists" not in messages(caplog)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--data-root", "nowhere"), "nowhere: no such data root"),
        (("--event", "Kleiner"), f"nearest: {FIRE}"),
        (("--event", "control"), f"nearest: {CONTROL}"),
        (("--event", "../" + FIRE), "no event"),
        (("--device", "cuda:7"), "cuda:7: not there"),
        (("--device", "quantum"), "quantum: no such device"),
        (("--sam-checkpoint", "nowhere.pth"), "nowhere.pth: SAM weights not found"),
        (("--patch-size", "0"), "--patch-size"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    small_events: Path, tmp_path: Path, flags: tuple[str, str], problem: str
) -> None:
    roots = ("--data-root", small_events, "--output-root", tmp_path)
    refused = run_process("run_stage1.py", *roots, *DEMO_SAM, *flags)
    assert refused.returncode == 2
    assert problem in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_without_a_gpu_the_default_device_is_the_cpu_after_one_warning(small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--output-root", tmp_path, "--event", CONTROL)
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    done = run_process("run_stage1.py", *roots, "--sam-model-type", "vit_demo", **FEW_POINTS, **hidden)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: no GPU") == 1


def test_a_killed_run_leaves_only_whole_files_and_the_next_one_goes_on(small_events: Path, tmp_path: Path) -> None:
    arguments = ("--data-root", small_events, "--output-root", tmp_path, *DEMO_SAM)
    environment = os.environ | FEW_POINTS
    with subprocess.Popen(
        command("run_stage1.py", *arguments), stderr=subprocess.PIPE, text=True, cwd=PROJECT, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "stage 1 done" in line:
                process.send_signal(signal.SIGKILL)
                break
    maps = list(tmp_path.glob(f"*/{config.CHANGE_MAP_NAME}"))
    assert maps
    for path in maps:
        read_map(path)
    done = run_process("run_stage1.py", *arguments, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert f"skipped {CONTROL}: its change map exists" in done.stderr
    assert not list(tmp_path.rglob("*.part"))


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
    assert header == list(run_eval.CSV_COLUMNS)
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
    ],
)
def test_evaluation_flags_change_what_they_name(
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
    nowhere = Georeference(None, None)
    write_raster(data_root / FIRE / "anomaly_20210720_label.tif", label, nowhere)
    for name, values in ((config.FILTERED_MAP_NAME, changes), (config.ANOMALY_MAP_NAME, anomalies)):
        write_raster(tmp_path / "stage2" / FIRE / name, values, nowhere)
    assert evaluate(data_root, tmp_path, *flags) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"  Stage1  {stage1_line}" in printed[1]
    assert f"  Stage2  {stage2_line}" in printed[2]


def test_max_events_counts_normal_controls(finished: Path, small_events: Path, tmp_path: Path) -> None:
    assert evaluate(small_events, finished, "--max-events", 1, "--output-csv", tmp_path / "table.csv") == 0
    assert read_table(tmp_path / "table.csv") == [list(run_eval.CSV_COLUMNS)]


def test_evaluation_leaves_out_events_without_label(
    finished: Path, data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data_root / FIRE / "anomaly_20210720_label.tif").unlink()
    assert evaluate(data_root, finished) == 0
    assert "no label, not evaluated" in messages(caplog)


def test_evaluation_without_maps_fails_the_event(
    small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert evaluate(small_events, tmp_path) == 1
    assert f"{FIRE}: evaluation failed" in messages(caplog)


def test_evaluation_refuses_a_label_of_another_size(
    finished: Path, data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label = data_root / FIRE / "anomaly_20210720_label.tif"
    write_raster(label, np.zeros((50, 60), np.uint8), Georeference(None, None))
    assert evaluate(data_root, finished) == 1
    assert "sizes differ" in messages(caplog)


def test_quick_test_passes_without_data(tmp_path: Path) -> None:
    done = run_process("quick_test.py", "--data-root", tmp_path, *DEMO_SAM, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert "data: none yet" in done.stdout
    assert "change map (1024, 1024) float32" in done.stdout
    assert done.stdout.splitlines()[-1] == "QUICK TEST PASSED"


def test_quick_test_takes_the_event_it_is_given(small_events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quick_test.main(["--data-root", str(small_events), "--event", FIRE, *DEMO_SAM]) == 0
    assert f"event {FIRE}: 4 historical images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--sam-checkpoint", "nowhere.pth"), "nowhere.pth: SAM weights not found"),
        (("--event", "9_none"), "no event '9_none'"),
        (("--device", "cuda:7"), "cuda:7: not there"),
    ],
)
def test_quick_test_says_in_one_line_what_to_do(
    small_events: Path, flags: tuple[str, str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_test.main(["--data-root", str(small_events), *DEMO_SAM, *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert problem in line


def test_quick_test_names_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-package>=1.0\n")
    monkeypatch.setattr(quick_test, "REQUIREMENTS", requirements)
    assert quick_test.main([]) == 1
    assert "no-such-package cannot be imported" in capsys.readouterr().err


def test_quick_test_names_an_old_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("tqdm>=99.0\n")
    monkeypatch.setattr(quick_test, "REQUIREMENTS", requirements)
    assert quick_test.main([]) == 1
    assert "is too old, 99.0 or newer is needed" in capsys.readouterr().err


def test_the_demo_draws_a_picture_of_every_event(finished: Path, small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--result-root", finished / "stage2")
    done = run_process("-mdemo.panels", *roots, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{CONTROL}.png", f"{FIRE}.png"}


def test_the_demo_draws_six_events(tmp_path: Path) -> None:
    done = run_process("-mdemo.make_events", tmp_path)
    assert done.returncode == 0, done.stderr
    listing = list_events(tmp_path)
    assert [event.category for event in listing.events] == [0, 1, 2, 3, 4, 5]
    assert not listing.skipped
    for event in listing.events:
        images = open_event([*event.historical, event.monitor])
        assert len(event.historical) == 4
        assert images[0].shape == (1024, 1024)
        assert images[0].georeference.spatial_reference is not None
