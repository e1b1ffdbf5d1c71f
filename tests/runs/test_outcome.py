"""What a run says at its end."""

import shutil
from pathlib import Path

import pytest

import config
import run
from runs.outcome import log_outcome, next_command
from tests.scripts import CONTROL, FIRE, run_process
from utils import list_events


def test_the_next_command_has_only_what_is_not_the_default() -> None:
    flags = (
        ("--data-root", Path("my data"), Path("data/GDL")),
        ("--stage1-root", Path("a"), Path("a")),
    )
    assert next_command("run_report.py", flags) == "python run_report.py --data-root 'my data'"


def test_the_outcome_names_regions_and_folder(
    finished: Path, small_events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "anomalycd")
    roots = ["--stage1-root", str(finished / "stage1"), "--stage2-root", str(finished / "stage2")]
    args = run.parse_arguments(["--data-root", str(small_events), *roots])
    events = list_events(small_events).events
    log_outcome(events, lambda event: run.plan(event, args), ["python run_report.py"])
    folder = finished / "stage2" / FIRE
    line = next(message for message in caplog.messages if message.startswith(f"{FIRE}: "))
    assert line.startswith(f"{FIRE}: 1 region, ")
    assert " m², highest score 0." in line
    assert line.endswith(f": {folder}")
    assert caplog.messages[-1] == "next: python run_report.py"


def test_scripts_end_with_the_next_command_and_begin_their_log_with_versions(
    finished: Path, small_events: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "results")
    roots = ["--stage1-root", tmp_path / "results" / "stage1", "--stage2-root", tmp_path / "results" / "stage2"]
    log = tmp_path / "log.txt"
    flags = ["--data-root", small_events, *roots, "--skip-existing-stage2", "--event", CONTROL, "--device", "cpu"]
    done = run_process("run.py", *flags, "--sam-model-type", "vit_demo", "--log-file", log)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        f"next: python run_report.py --data-root {small_events} --stage1-root"
    )
    second = log.read_text(encoding="utf-8").splitlines()[1]
    assert f"AnomalyCD {config.VERSION}" in second
    assert "GDAL 3." in second
