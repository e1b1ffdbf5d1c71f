"""Suggested thresholds, on maps small enough to count by hand."""

from pathlib import Path

import numpy as np
import pytest

import config
from eval_metrics import Scores
from evaluation.evaluate import Evaluation, evaluate_events
from evaluation.event_maps import EvalSettings, curve_thresholds
from evaluation.thresholds import Plateau, plateau, print_suggestions
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from utils import list_events

SIDE = 100  # of all maps: 10000 pixels, so that 10 pixels are 0.1 %
NAN = np.float32(np.nan)


def add_event(root: Path, name: str, scores: np.ndarray, label: np.ndarray | None = None) -> None:
    """Write an event with black images, and its maps; without a label it is a normal control."""
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    images = {"normal_1": rgb, "normal_2": rgb} if label is None else {"normal_1": rgb, "anomaly_2": rgb}
    for stem, values in (images if label is None else images | {"anomaly_2_label": label}).items():
        write_raster(root / "data" / name / f"{stem}.tif", values, Georeference())
    for file in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME):
        write_raster(root / "results" / name / file, scores.astype(np.float32), Georeference())


def evaluated(root: Path, settings: EvalSettings) -> Evaluation:
    listing = list_events(root / "data")
    return evaluate_events(listing, root / "results", settings, with_curves=True, with_controls=True)


def suggested(root: Path, settings: EvalSettings, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what is printed after the colon of both lines."""
    found = evaluated(root, settings)
    print_suggestions(curve_thresholds(settings.stage2_threshold), found.curves, found.controls)
    labelled, controls = capsys.readouterr().out.splitlines()
    return [
        labelled.removeprefix("Threshold suggested by labelled events: "),
        controls.removeprefix("Threshold suggested by normal controls: "),
    ]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two events with 1000 anomalous pixels each.

    First: all scored 0.5, and 1000 pixels outside scored 0.101. Second: half scored 0.3, half 0.061, none outside.
    """
    label = np.ones((SIDE, SIDE), np.uint8)
    label[:10] = 2
    first, second = np.zeros((2, SIDE, SIDE))
    first[:10], first[50:60] = 0.5, 0.101
    second[:5], second[5:10] = 0.3, 0.061
    add_event(tmp_path, "4_first", first, label)
    add_event(tmp_path, "5_second", second, label)
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "span", "f1"),
    [
        # Up to 0.061, the mean recall is 1 and the mean precision (1000 / 1100 + 1) / 2 = 21/22. Above 0.101, they are
        # 3/4 and 1, so F1 is 6/7. 0.004 is the lowest threshold at which the pixels of score 0 are not flagged.
        (EvalSettings(), "0.032 (middle of 0.004 to 0.06", 42 / 43),
        # The mean precision up to 0.061 is (1000 / 2000 + 1) / 2 = 3/4, so both F1 are 6/7; between them it is 2/3.
        (EvalSettings(background_weight=1), "0.032 (middle of 0.004 to 0.06", 6 / 7),
        # The mean precision up to 0.061 is (1000 / 3000 + 1) / 2 = 2/3, so F1 is 4/5 there. 0.3 is the next score.
        (EvalSettings(background_weight=2), "0.2 (middle of 0.104 to 0.296", 6 / 7),
        # Scaled, 0.101 of the first event is 0.202, and 0.061 of the second 0.203. All its other pixels are 1.
        (EvalSettings(background_weight=2, normalize_anomaly_map=True), "0.6 (middle of 0.216 to 1", 6 / 7),
        # Components below 600 pixels are dropped: of the second event only all 1000 together are large enough.
        (EvalSettings(background_weight=2, area_ratio=0.06), "0.032 (middle of 0.004 to 0.06", 4 / 5),
        # The evaluation's own threshold is tried too.
        (EvalSettings(background_weight=2, stage2_threshold=0.1025), "0.2 (middle of 0.1025 to 0.296", 6 / 7),
    ],
)
def test_labelled_events_suggest_the_middle_of_the_best_thresholds(
    labelled: Path, capsys: pytest.CaptureFixture[str], settings: EvalSettings, span: str, f1: float
) -> None:
    line, _ = suggested(labelled, settings, capsys)
    assert line == (
        f"{span}, where F1 of the averages is within 0.01 of the best, {f1:.4f}; "
        "labelled events: 2, too few to rely on: below 5)"
    )


def test_five_labelled_events_are_enough(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label, scores = np.ones((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE))
    label[:10], scores[:10] = 2, 0.5
    for number in (1, 2, 3):
        add_event(labelled, f"{number}_more", scores, label)
    assert suggested(labelled, EvalSettings(), capsys)[0].endswith("; labelled events: 5)")


def test_no_threshold_is_suggested_if_none_finds_an_anomalous_pixel(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, _ = suggested(labelled, EvalSettings(area_ratio=1.5), capsys)
    assert line == "none, no threshold finds an anomalous pixel (labelled events: 2)"


@pytest.fixture
def controls(tmp_path: Path) -> Path:
    """Two controls with 15000 pixels with data: 8 and 7 pixels are scored 0.5, 4 in the first are scored 0.3."""
    first, second = np.zeros((2, SIDE, SIDE))
    first[20, 20:28], first[70, 70:74] = 0.5, 0.3
    second[50:], second[20, 20:27] = NAN, 0.5
    add_event(tmp_path, "0_first", first)
    add_event(tmp_path, "0_second", second)
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # 15 of 15000 pixels are 0.1 % exactly, 19 are more. The mean of both shares is more than 0.1 % in both cases.
        (EvalSettings(), "0.312 (lowest that flags at most 0.1 % of the pixels; flags 0.1 %;"),
        # Components below 8 pixels are dropped: only the 8 of the first control remain.
        (EvalSettings(area_ratio=0.0008), "0.004 (lowest that flags at most 0.1 % of the pixels; flags 0.0533 %;"),
        # Scaled, 0.3 of the first control is 0.6.
        (
            EvalSettings(normalize_anomaly_map=True),
            "0.616 (lowest that flags at most 0.1 % of the pixels; flags 0.1 %;",
        ),
    ],
)
def test_controls_suggest_the_lowest_threshold_that_flags_a_thousandth_of_their_pixels(
    controls: Path, capsys: pytest.CaptureFixture[str], settings: EvalSettings, expected: str
) -> None:
    _, line = suggested(controls, settings, capsys)
    assert line == f"{expected} normal controls: 2; pixels: 15000)"


@pytest.mark.parametrize(("above", "threshold"), [(1.3, "1.5"), (0.9, "0.904")])
def test_thresholds_above_1_are_tried_only_if_the_evaluation_has_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], above: float, threshold: str
) -> None:
    add_event(tmp_path, "0_control", np.full((SIDE, SIDE), above))
    _, line = suggested(tmp_path, EvalSettings(stage2_threshold=1.5), capsys)
    assert line.startswith(f"{threshold} (lowest that flags at most 0.1 % of the pixels; flags 0 %; ")


def test_no_threshold_is_suggested_if_all_flag_too_many_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_event(tmp_path, "0_control", np.full((SIDE, SIDE), 1.3))
    _, line = suggested(tmp_path, EvalSettings(), capsys)
    assert line == (
        "none, every threshold up to 1 flags more than 0.1 % of the pixels (normal controls: 1; pixels: 10000)"
    )


def test_missing_kinds_of_events_are_named(
    labelled: Path, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert suggested(labelled, EvalSettings(), capsys)[1] == "none, no normal control has a usable map"
    empty = tmp_path_factory.mktemp("empty")
    add_event(empty, "0_control", np.full((SIDE, SIDE), NAN))  # no pixel has data
    assert suggested(empty, EvalSettings(), capsys) == [
        "none, no labelled event was evaluated",
        "none, no normal control has a usable map",
    ]


def test_a_control_without_maps_is_left_out_with_a_warning(controls: Path, caplog: pytest.LogCaptureFixture) -> None:
    (controls / "results" / "0_first" / config.ANOMALY_MAP_NAME).unlink()
    found = evaluated(controls, EvalSettings())
    assert [control.valid for control in found.controls] == [5000]
    assert found.summary.failed == []
    assert found.summary.skipped == [(name, "a normal control, not evaluated") for name in ("0_first", "0_second")]
    assert "0_first: this normal control is left out: " in caplog.text


def test_a_plateau_ends_where_f1_falls_by_more_than_a_hundredth() -> None:
    f1 = [0.5, 0.7, 0.691, 0.699, 0.689, 0.7]  # the last one is apart
    curve = [Scores.from_rates(rate, rate) for rate in f1]
    found = plateau([0.1, 0.2, 0.3, 0.5, 0.6, 0.7], [curve])
    assert found == Plateau(0.2, 0.5, 0.3, curve[1].f1)  # 0.35 is not tried
