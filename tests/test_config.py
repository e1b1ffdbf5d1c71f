from pathlib import Path

import pytest

import config
from tests.scripts import PROJECT, run_process


def setting(name: str, **environment: str) -> str:
    """The repr of a setting in a new process, and the overridden settings that it lists."""
    shown = run_process("-c", f"import config; print(repr(config.{name}), config.OVERRIDDEN)", **environment)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.strip()


PUBLISHED = {
    "SAM_MODEL_TYPE": "vit_b",
    "DEFAULT_DEVICE": "cuda:0",
    "MAX_REGION_FRACTION": 0.9,
    "STAGE1_PATCH_SIZE": 2048,
    "STAGE1_MIN_MASK_PIXELS": 3000,
    "STAGE1_CHANGE_QUANTILE": 0.9,
    "STAGE1_SAM_PARAMS": {
        "points_per_side": 32,
        "pred_iou_thresh": 0.6,
        "stability_score_thresh": 0.4,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.4,
        "crop_n_layers": 0,
        "crop_nms_thresh": 0.4,
        "min_mask_region_area": 10000,
    },
    "STAGE2_CHANGE_MAP_QUANTILE": 0.7,
    "STAGE2_MIN_MASK_PIXELS": 1500,
    "STAGE2_PATCH_SIZE": 2048,
    "STAGE2_SMALL_PATCH_SIZE": 1024,
    "STAGE2_SAM_PARAMS": {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.6, "min_mask_region_area": 1500},
    "EVAL_QUANTILE_THRESH": 0.945,
    "EVAL_STAGE2_FIXED_THRESH": 0.08,
    "EVAL_CLOSING_SIZE": 512,
    "EVAL_CLOSING_RADIUS": 3,
    "EVAL_AREA_RATIO": 0.0003,
    "EVAL_BACKGROUND_WEIGHT": 0.1,
    "EVAL_MAX_EVENTS": 80,
    "CHANGE_MAP_NAME": "change_map_continuous.tif",
    "CHANGE_PREVIEW_NAME": "change_map_binary.png",
    "FILTERED_MAP_NAME": "change_map_filtered.tif",
    "ANOMALY_MAP_NAME": "AnomalyCD_map.tif",
    "ANOMALY_PREVIEW_NAME": "AnomalyCD_map.png",
    "EVAL_CSV_NAME": "evaluation.csv",
    "WEIGHTS_DIR": PROJECT / "weights",
    "SAM_CHECKPOINT": PROJECT / "weights/sam_vit_b_01ec64.pth",
    "DEMO_CHECKPOINT": PROJECT / "tests/toy_sam/sam_vit_demo.pth",
    "DEFAULT_DATA_ROOT": PROJECT / "data/GDL",
    "STAGE1_OUTPUT_DIR": PROJECT / "outputs/stage1_change_detection",
    "STAGE2_OUTPUT_DIR": PROJECT / "outputs/stage2_anomaly_change",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    assert getattr(config, name) == PUBLISHED[name]


def test_a_number_is_read_from_the_environment() -> None:
    shown = setting("STAGE1_PATCH_SIZE", ANOMALYCD_STAGE1_PATCH_SIZE="1024")
    assert shown == "1024 {'STAGE1_PATCH_SIZE': '1024'}"


@pytest.mark.parametrize("name", ["EVAL_AREA_RATIO", "EVAL_BACKGROUND_WEIGHT"])
@pytest.mark.parametrize("text", ["0", "1.5", "20"])
def test_weights_and_ratios_may_be_above_1(name: str, text: str) -> None:
    assert setting(name, **{f"ANOMALYCD_{name}": text}) == f"{float(text)!r} {{{name!r}: {text!r}}}"


def test_an_empty_variable_is_ignored() -> None:
    assert setting("STAGE1_PATCH_SIZE", ANOMALYCD_STAGE1_PATCH_SIZE="") == "2048 {}"


def test_parameters_from_the_environment_are_merged_into_the_default() -> None:
    changes = {"points_per_side": 8, "crop_n_layers": 1}
    expected = config.STAGE1_SAM_PARAMS | changes
    shown = setting("STAGE1_SAM_PARAMS", ANOMALYCD_STAGE1_SAM_PARAMS='{"points_per_side": 8, "crop_n_layers": 1}')
    assert shown.startswith(repr(expected))


def test_output_root_sets_the_folders_of_both_stages(tmp_path: Path) -> None:
    for name, folder in (
        ("STAGE1_OUTPUT_DIR", "stage1_change_detection"),
        ("STAGE2_OUTPUT_DIR", "stage2_anomaly_change"),
    ):
        shown = setting(name, ANOMALYCD_DEFAULT_OUTPUT_ROOT=str(tmp_path))
        assert shown.startswith(repr(tmp_path / folder))


def test_weights_folder_sets_the_checkpoint(tmp_path: Path) -> None:
    shown = setting("SAM_CHECKPOINT", ANOMALYCD_WEIGHTS_DIR=str(tmp_path))
    assert shown.startswith(repr(tmp_path / "sam_vit_b_01ec64.pth"))


def test_paths_are_made_absolute_and_home_is_expanded() -> None:
    assert setting("DEFAULT_DATA_ROOT", ANOMALYCD_DEFAULT_DATA_ROOT="images").startswith(repr(PROJECT / "images"))
    shown = setting("DEFAULT_DATA_ROOT", ANOMALYCD_DEFAULT_DATA_ROOT="~/images", HOME="/home/somebody")
    assert shown.startswith(repr(Path("/home/somebody/images")))


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("STAGE1_PATCH_SIZE", "0", "int"),
        ("STAGE2_CHANGE_MAP_QUANTILE", "1.5", "float"),
        ("MAX_REGION_FRACTION", "nan", "float"),
        ("STAGE1_PATCH_SIZE", "abc", "int"),
        ("STAGE1_PATCH_SIZE", "10.5", "int"),
        ("EVAL_AREA_RATIO", "small", "float"),
        ("EVAL_AREA_RATIO", "-0.1", "float"),
        ("EVAL_AREA_RATIO", "nan", "float"),
        ("EVAL_BACKGROUND_WEIGHT", "-1", "float"),
        ("EVAL_BACKGROUND_WEIGHT", "inf", "float"),
        ("EVAL_QUANTILE_THRESH", "1.1", "float"),
        ("EVAL_MAX_EVENTS", "0", "int"),
        ("EVAL_MAX_EVENTS", "-3", "int"),
        ("STAGE1_SAM_PARAMS", "{points_per_side: 4}", "dict"),
        ("STAGE1_SAM_PARAMS", "[4]", "dict"),
    ],
)
def test_an_invalid_variable_is_reported_in_one_line_with_exit_code_2(name: str, text: str, kind: str) -> None:
    refused = run_process("run_stage1.py", "--help", **{f"ANOMALYCD_{name}": text})
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line == f"error: ANOMALYCD_{name}={text!r} is no valid {kind} here; unset it"


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [
        ("0.98", "", "(0.98) must be below ANOMALYCD_STRETCH_HIGH_QUANTILE (0.98)"),
        ("0.9", "0.1", "(0.9) must be below ANOMALYCD_STRETCH_HIGH_QUANTILE (0.1)"),
    ],
)
def test_stretch_quantiles_in_the_wrong_order_are_refused(low: str, high: str, named: str) -> None:
    names = {"ANOMALYCD_STRETCH_LOW_QUANTILE": low, "ANOMALYCD_STRETCH_HIGH_QUANTILE": high}
    refused = run_process("run_stage1.py", "--help", **names)
    assert refused.returncode == 2
    assert refused.stderr == f"error: ANOMALYCD_STRETCH_LOW_QUANTILE {named}; unset them\n"
