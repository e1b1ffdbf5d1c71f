"""quick_test.py: its output, and its messages when something is missing."""

from pathlib import Path

import pytest

import config
import quick_test
from tests.scripts import DEMO_SAM, FEW_POINTS, FIRE, run_process

pytestmark = pytest.mark.usefixtures("few_points")


@pytest.mark.skipif(config.DEFAULT_DATA_ROOT.exists(), reason=f"{config.DEFAULT_DATA_ROOT} holds data")
def test_quick_test_passes_without_data() -> None:
    done = run_process("quick_test.py", *DEMO_SAM, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert "no data (" in done.stdout
    assert "change map (1024, 1024) float32" in done.stdout
    assert done.stdout.splitlines()[-1] == "QUICK TEST PASSED"
    assert ", a label; window of 1024 x 1024 pixels at column 0, row 0" in done.stdout


def test_a_data_root_that_is_named_must_hold_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quick_test.main(["--data-root", str(tmp_path), *DEMO_SAM]) == 1
    output = capsys.readouterr()
    assert output.err == f"error: {tmp_path}: no event folders (names beginning with 0_ to 6_) in this data root\n"
    assert "PASSED" not in output.out


def test_quick_test_uses_the_given_event(small_events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quick_test.main(["--data-root", str(small_events), "--event", FIRE, *DEMO_SAM]) == 0
    assert f"event {FIRE}: 4 historical images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--sam-checkpoint", "nowhere.pth"), "nowhere.pth: SAM weights not found"),
        (("--event", "9_none"), "no event '9_none'"),
        (("--device", "cuda:7"), "cuda:7: not found"),
    ],
)
def test_quick_test_reports_problems_in_one_line(
    small_events: Path, flags: tuple[str, str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_test.main(["--data-root", str(small_events), *DEMO_SAM, *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert problem in line


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("no-such-package>=1.0", "no-such-package cannot be imported"),
        ("tqdm>=99.0", "is too old, 99.0 or newer is needed"),
    ],
)
def test_quick_test_names_a_missing_or_old_package(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    requirement: str,
    problem: str,
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{requirement}\n")
    monkeypatch.setattr(quick_test, "REQUIREMENTS", requirements)
    assert quick_test.main([]) == 1
    assert problem in capsys.readouterr().err
