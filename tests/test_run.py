"""run.py and the stage scripts with every flag, as processes or through `main`."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import config
import run
import run_stage1
import run_stage2
from rasters.cog import write_raster
from rasters.geotiff import Georeference, GeoTiff
from rasters.maps import ScoreMap, map_tags
from sam.engine import SamEngine, ScaledImage
from sam.features import WindowFeatures
from tests.helpers import whole
from tests.scripts import CONTROL, DEMO_SAM, FEW_POINTS, FIRE, run_process
from tests.tiffs import write_tiff
from utils import Window

pytestmark = pytest.mark.usefixtures("few_points")


def stage1(data: Path, output: Path, *flags: object) -> int:
    return run_stage1.main([*map(str, ("--data-root", data, "--output-root", output, *flags)), *DEMO_SAM])


def stage2(data: Path, results: Path, output: Path, *flags: object) -> int:
    roots = ("--data-root", data, "--stage1-root", results / "stage1", "--output-root", output)
    return run_stage2.main([*map(str, (*roots, *flags)), *DEMO_SAM])


SAM_FLAGS = {
    "--device": "cuda:0",
    "--sam-checkpoint": "sam_vit_b_01ec64.pth",
    "--sam-model-type": "vit_b",
    "--precision": "fp32",
    "--points-per-batch": "from the device's memory",
    "--encode-batch": "from the device's memory",
    "--compile": "not compiled",
}
DATA_FLAGS = {"--data-root": "data/GDL", "--event": "all of them"}
IMAGE_FLAGS = {"--stretch": "auto", "--bands": "the first three", "--align-shift": "0, no estimate"}
LOG_FLAG = {"--log-file": "none"}
WINDOW_FLAGS = {"--overlap": "0, the published layout", "--tolerance": "0, as published"}
STAGE2_FLAGS = {"--explain": "no", "--simplify": "0, they follow the pixels", "--geojson": "no"}
RAY_FLAGS = {
    "--ray[": "in this process; see docs/cluster.md",
    "--ray-workers": "one on every GPU; without GPUs as many as the CPUs allow",
    "--ray-gpus-per-worker": "1.0",
    "--ray-cpus-per-worker": "the machine's, shared by its workers",
    "--dry-run": "run",
}


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
            | WINDOW_FLAGS
            | STAGE2_FLAGS
            | DATA_FLAGS
            | IMAGE_FLAGS
            | SAM_FLAGS
            | RAY_FLAGS
            | LOG_FLAG,
        ),
        (
            "run_stage1.py",
            {"--output-root": "stage1_change_detection", "--patch-size": "2048", "--skip-existing": "skip"}
            | WINDOW_FLAGS
            | DATA_FLAGS
            | IMAGE_FLAGS
            | SAM_FLAGS
            | RAY_FLAGS
            | LOG_FLAG,
        ),
        (
            "run_stage2.py",
            {
                "--stage1-root": "stage1_change_detection",
                "--output-root": "stage2_anomaly_change",
                "--skip-existing": "recompute",
            }
            | WINDOW_FLAGS
            | STAGE2_FLAGS
            | DATA_FLAGS
            | IMAGE_FLAGS
            | SAM_FLAGS
            | RAY_FLAGS
            | LOG_FLAG,
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
                "--normalize-anomaly-map": "no scaling",
                "--output-csv": "evaluation.csv",
                "--output-json": "not written",
                "--plots": "none",
            }
            | LOG_FLAG,
        ),
        (
            "run_report.py",
            {
                "--stage1-root": "stage1_change_detection",
                "--result-root": "stage2_anomaly_change",
                "--output": "report",
                "--max-width": "1600",
                "--figure": "none",
            }
            | DATA_FLAGS
            | LOG_FLAG,
        ),
        ("quick_test.py", DATA_FLAGS | IMAGE_FLAGS | SAM_FLAGS),
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
            f"stage1/{name}/change_map_continuous.qml",
            f"stage1/{name}/change_map_continuous.tif",
            f"stage2/{name}/AnomalyCD_map.png",
            f"stage2/{name}/AnomalyCD_map.qml",
            f"stage2/{name}/AnomalyCD_map.tif",
            f"stage2/{name}/AnomalyCD_regions.gpkg",
            f"stage2/{name}/change_map_filtered.qml",
            f"stage2/{name}/change_map_filtered.tif",
        }


def test_runs_are_reproducible(finished: Path, small_events: Path, tmp_path: Path) -> None:
    assert stage1(small_events, tmp_path / "stage1", "--event", FIRE) == 0
    assert stage2(small_events, tmp_path, tmp_path / "stage2", "--event", FIRE) == 0
    for file in (f"stage1/{FIRE}/{config.CHANGE_MAP_NAME}", f"stage2/{FIRE}/{config.ANOMALY_MAP_NAME}"):
        np.testing.assert_array_equal(whole(ScoreMap(tmp_path / file)), whole(ScoreMap(finished / file)))


def test_stage1_skips_existing_maps_by_default(
    finished: Path, small_events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = finished / "stage1" / FIRE / config.CHANGE_MAP_NAME
    before = written.stat().st_mtime_ns
    assert stage1(small_events, finished / "stage1", "--event", FIRE, "--skip-existing") == 0
    assert "its change map exists" in caplog.text
    assert written.stat().st_mtime_ns == before
    assert stage1(small_events, finished / "stage1", "--event", FIRE, "--no-skip-existing") == 0
    assert written.stat().st_mtime_ns > before


def test_stage1_recomputes_a_map_if_its_parameters_change(
    small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert stage1(small_events, tmp_path, "--event", FIRE, "--patch-size", 128) == 0
    first = whole(ScoreMap(tmp_path / FIRE / config.CHANGE_MAP_NAME))
    assert stage1(small_events, tmp_path, "--event", FIRE, "--patch-size", 256) == 0
    assert "computed with different patch_size" in caplog.text
    assert (whole(ScoreMap(tmp_path / FIRE / config.CHANGE_MAP_NAME)) != first).any()


def test_stage1_recomputes_a_truncated_map(small_events: Path, tmp_path: Path) -> None:
    assert stage1(small_events, tmp_path, "--event", FIRE) == 0
    path = tmp_path / FIRE / config.CHANGE_MAP_NAME
    first = whole(ScoreMap(path))
    os.truncate(path, path.stat().st_size // 2)
    assert stage1(small_events, tmp_path, "--event", FIRE) == 0
    np.testing.assert_array_equal(whole(ScoreMap(path)), first)


def test_stage2_recomputes_existing_maps_by_default(
    finished: Path, small_events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = finished / "stage2" / FIRE / config.ANOMALY_MAP_NAME
    before = written.stat().st_mtime_ns
    assert stage2(small_events, finished, finished / "stage2", "--event", FIRE) == 0
    after = written.stat().st_mtime_ns
    assert after > before
    assert stage2(small_events, finished, finished / "stage2", "--event", FIRE, "--skip-existing") == 0
    assert "its anomaly map exists" in caplog.text
    assert written.stat().st_mtime_ns == after


def test_stage2_fails_events_without_a_change_map_and_continues(
    finished: Path, small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished / "stage1" / FIRE, tmp_path / "stage1" / FIRE)
    assert stage2(small_events, tmp_path, tmp_path / "stage2") == 1
    assert f"{CONTROL}: stage 2 failed" in caplog.text
    assert "run stage 1 first" in caplog.text
    assert (tmp_path / "stage2" / FIRE / config.ANOMALY_MAP_NAME).exists()


def test_stage2_warns_of_a_map_made_with_other_weights(
    finished: Path, small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "stage1" / FIRE / config.CHANGE_MAP_NAME
    changes = whole(ScoreMap(finished / "stage1" / FIRE / config.CHANGE_MAP_NAME))
    write_raster(path, changes, Georeference(), map_tags({"sam_model_type": "vit_b"}, ""))
    assert stage2(small_events, tmp_path, tmp_path / "stage2", "--event", FIRE) == 0
    differing = "align_shift, precision, sam_checkpoint_sha256, sam_model_type, shifts"
    assert f"was made with different settings than stage 2's: {differing}\n" in caplog.text


def test_stage2_refuses_a_map_of_another_size(
    small_events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "stage1" / FIRE / config.CHANGE_MAP_NAME
    write_raster(path, np.zeros((100, 90), np.float32), Georeference(None, None))
    assert stage2(small_events, tmp_path, tmp_path / "stage2", "--event", FIRE) == 1
    assert "sizes differ, 90 x 100 and 256 x 256" in caplog.text


def test_one_bad_event_does_not_stop_the_others(
    data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = data_root / CONTROL / "normal_20210720.tif"
    os.truncate(monitor, monitor.stat().st_size // 3)
    assert stage1(data_root, tmp_path / "stage1") == 1
    assert (tmp_path / "stage1" / FIRE / config.CHANGE_MAP_NAME).exists()
    assert not (tmp_path / "stage1" / CONTROL).exists()
    assert str(monitor) in caplog.text
    assert "1 done, 0 skipped, 1 failed" in caplog.text


def test_run_passes_its_flags_to_the_stages(data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    roots = ["--data-root", data_root, "--stage1-root", tmp_path / "one", "--stage2-root", tmp_path / "two"]
    common = [*map(str, roots), "--event", FIRE, "--patch-size", "128", *DEMO_SAM]
    assert run.main(["--stage", "1", *common]) == 0
    assert not (tmp_path / "two").exists()
    assert run.main(["--stage", "2", *common]) == 0
    assert run.main([*common, "--skip-existing-stage2"]) == 0
    assert "its change map exists" in caplog.text
    assert "its anomaly map exists" in caplog.text
    caplog.clear()
    assert run.main([*common, "--no-skip-existing-stage1"]) == 0
    assert "exists" not in caplog.text


def encoded_images(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> list[bytes]:
    """The images that the encoder receives in a run of both stages."""
    seen: list[bytes] = []
    encode = SamEngine.encode

    def remember(engine: SamEngine, images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        seen.extend(image.pixels.tobytes() for image in images)
        return encode(engine, images)

    monkeypatch.setattr(SamEngine, "encode", remember)
    assert run.main(arguments) == 0
    return seen


@pytest.mark.parametrize(("patch_size", "passes"), [(2048, 5), (128, 2 * 4 + 5)])  # 256 pixels; stage 2 takes 1024
def test_features_of_windows_common_to_both_stages_are_encoded_once(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch_size: int, passes: int
) -> None:
    roots = ["--data-root", data_root, "--stage1-root", tmp_path / "one", "--stage2-root", tmp_path / "two"]
    arguments = [*map(str, roots), "--event", FIRE, "--patch-size", str(patch_size), *DEMO_SAM]
    seen = encoded_images(monkeypatch, arguments)
    assert len(seen) == len(set(seen)) == passes


@pytest.mark.parametrize("name", [config.REGIONS_NAME, config.ANOMALY_PREVIEW_NAME])
def test_missing_previews_and_polygons_are_written_from_the_map(
    finished: Path, small_events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    results = tmp_path / "stage2"
    shutil.copytree(finished / "stage2", results)
    before = (results / FIRE / config.ANOMALY_MAP_NAME).read_bytes()
    (results / FIRE / name).unlink()
    arguments = ["--stage", "2", "--stage1-root", str(finished / "stage1"), "--stage2-root", str(results)]
    arguments += ["--data-root", str(small_events), "--event", FIRE, "--skip-existing-stage2", *DEMO_SAM]
    assert encoded_images(monkeypatch, arguments) == []
    assert (results / FIRE / name).exists()
    assert (results / FIRE / config.ANOMALY_MAP_NAME).read_bytes() == before


def test_windows_without_data_are_not_encoded(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "STAGE2_PATCH_SIZE", 128)
    monkeypatch.setattr(config, "STAGE2_SMALL_PATCH_SIZE", 128)
    for path in (data_root / CONTROL).iterdir():
        values = GeoTiff(path).read_bands([1, 2, 3], Window(0, 0, 256, 256))
        values[:, :128] = 0  # two of four windows
        write_tiff(path, values, nodata=0)
    roots = ["--data-root", data_root, "--stage1-root", tmp_path / "one", "--stage2-root", tmp_path / "two"]
    arguments = [*map(str, roots), "--event", CONTROL, "--patch-size", "128", *DEMO_SAM]
    assert len(encoded_images(monkeypatch, arguments)) == 2 * 5
    anomalies = whole(ScoreMap(tmp_path / "two" / CONTROL / config.ANOMALY_MAP_NAME))
    assert np.isnan(anomalies[:, :128]).all()
    assert not np.isnan(anomalies[:, 128:]).all()


def test_one_run_of_both_stages_equals_separate_runs(finished: Path, small_events: Path, tmp_path: Path) -> None:
    alone = run_process(
        "run_stage2.py",
        *("--data-root", small_events, "--stage1-root", finished / "stage1", "--output-root", tmp_path, *DEMO_SAM),
    )
    assert alone.returncode == 0, alone.stderr
    for name in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME):
        maps = [whole(ScoreMap(root / FIRE / name)) for root in (finished / "stage2", tmp_path)]
        np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--data-root", "nowhere"), "nowhere: cannot read the data root"),
        (("--event", "Kleiner"), f"similar names: {FIRE}"),
        (("--event", "control"), f"similar names: {CONTROL}"),
        (("--event", "../" + FIRE), "no event"),
        (("--device", "cuda:7"), "cuda:7: not found"),
        (("--device", "quantum"), "quantum: no such device"),
        (("--sam-checkpoint", "nowhere.pth"), "nowhere.pth: SAM weights not found"),
        (("--patch-size", "0"), "--patch-size"),
    ],
)
def test_wrong_usage_is_reported_in_one_line_with_exit_code_2(
    small_events: Path, tmp_path: Path, flags: tuple[str, str], problem: str
) -> None:
    roots = ("--data-root", small_events, "--output-root", tmp_path)
    refused = run_process("run_stage1.py", *roots, *DEMO_SAM, *flags)
    assert refused.returncode == 2
    assert problem in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_weights_that_cannot_be_used_are_named_before_an_event_is_opened(small_events: Path, tmp_path: Path) -> None:
    weights = tmp_path / "mobile_sam.pt"
    weights.write_bytes(b"sign in to download")
    flags = ("--device", "cpu", "--sam-model-type", "vit_t", "--sam-checkpoint", weights)
    refused = run_process("run_stage1.py", "--data-root", small_events, "--output-root", tmp_path / "out", *flags)
    assert refused.returncode == 2
    described, last = refused.stderr.splitlines()
    assert described == f"SAM vit_t: {weights} (NOT the official file) on cpu"
    assert last.startswith(f"error: {weights}: ")
    assert not (tmp_path / "out").exists()


def test_reason_of_a_failure_and_name_of_its_file_are_printed_once(data_root: Path, tmp_path: Path) -> None:
    (file,) = (path for path in (data_root / FIRE).glob("anomaly_*.tif") if not path.stem.endswith("label"))
    os.truncate(file, 2000)
    roots = ("--data-root", data_root, "--output-root", tmp_path, "--event", FIRE)
    done = run_process("run_stage1.py", *roots, *DEMO_SAM)
    assert done.returncode == 1
    assert done.stderr.count(file.name) == 1
    assert f"  failed {FIRE}" in done.stderr.splitlines()


def test_without_a_gpu_the_default_device_is_the_cpu_with_one_warning(small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--output-root", tmp_path, "--event", CONTROL)
    no_gpu = {"CUDA_VISIBLE_DEVICES": ""}
    done = run_process("run_stage1.py", *roots, "--sam-model-type", "vit_demo", **FEW_POINTS, **no_gpu)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: no GPU") == 1
