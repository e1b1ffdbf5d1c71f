import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

import config
from demo.scenes import make_event
from sam_engine import SamEngine, load_engine, load_model, resolve_device
from utils import UsageError

# Lower thresholds than published, so that the toy finds masks in so few points.
FEW_POINTS = {
    "points_per_side": 4,
    "pred_iou_thresh": 0.2,
    "stability_score_thresh": 0.2,
    "box_nms_thresh": 0.7,
    "min_mask_region_area": 20,
}
SCENE = make_event(seed=3, category=4, size=160, historical_dates=1).monitor
WINDOWS = {"square": SCENE, "wide": SCENE[:90], "tall": SCENE[:, :70]}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Windows this small are too little to share: on a busy machine, threads wait for each other many times longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def refusal(checkpoint: Path, model_type: str = "vit_demo") -> str:
    """The one line that a file of weights is refused with, which names it."""
    with pytest.raises(UsageError) as refused:
        load_model(model_type, checkpoint)
    message = str(refused.value)
    assert message.startswith(f"{checkpoint}: ")
    assert "\n" not in message
    return message


# --- Weights ---------------------------------------------------------------------------------------------------------
def test_missing_weights(tmp_path: Path) -> None:
    assert "not found" in refusal(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_truncated_weights(tmp_path: Path, share: float) -> None:
    content = config.DEMO_CHECKPOINT.read_bytes()
    path = tmp_path / "cut_off.pth"
    path.write_bytes(content[: int(len(content) * share)])
    assert "damaged or cut off" in refusal(path)


def test_a_text_file_is_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_text("<html>404 Not Found</html>\n")
    assert "not a plain state dict" in refusal(path)


def test_a_folder_is_no_weights(tmp_path: Path) -> None:
    refusal(tmp_path)


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=40), header=st.sampled_from([b"", b"\x80\x02", b"\x80\x02}q\x00(", b"PK\x03\x04"]))
def test_no_file_of_any_bytes_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, header: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_bytes.pth"
    path.write_bytes(header + content)
    refusal(path)


class Intruder:
    """Something that runs a command when it is unpickled freely."""

    def __init__(self, written: Path) -> None:
        self._written = written

    def __reduce__(self) -> tuple[Any, ...]:
        """Name the command to the pickle."""
        return os.mkdir, (str(self._written),)


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_weights_is_not_run(tmp_path: Path, archive: bool) -> None:
    path, written = tmp_path / "intruder.pth", tmp_path / "written"
    content = {"image_encoder.pos_embed": Intruder(written)}
    if archive:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    assert "it holds code" in refusal(path)
    assert not written.exists()


def test_weights_of_another_architecture() -> None:
    message = refusal(config.DEMO_CHECKPOINT, "vit_b")
    assert "these are not vit_b weights" in message
    assert "--sam-model-type" in message


def test_weights_that_lack_a_tensor(tmp_path: Path, demo_model: Sam) -> None:
    state = demo_model.state_dict()
    state.popitem()
    torch.save(state, tmp_path / "incomplete.pth")
    assert "these are not vit_demo weights" in refusal(tmp_path / "incomplete.pth")


@pytest.mark.parametrize("content", [{}, [1, 2], torch.zeros(3), {1: torch.zeros(3)}, {"model": {}}, None])
def test_data_that_is_no_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "data.pth")
    assert "these are not vit_demo weights" in refusal(tmp_path / "data.pth")


def test_a_torch_that_cannot_read_safely_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(UsageError, match=r"torch 2.9.1 cannot load weights safely; install torch >= 2.10"):
        load_model("vit_demo", config.DEMO_CHECKPOINT)


# --- Devices ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """How many GPUs torch sees."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_without_a_gpu_the_default_falls_back_with_a_warning(gpus: int, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_device(None) == torch.device("cpu")
    (warning,) = caplog.messages
    assert warning.startswith("no GPU for cuda:0: running on the CPU")


@pytest.mark.parametrize(
    ("gpus", "name", "expected"),
    [(1, None, "cuda:0"), (1, "cuda", "cuda"), (2, "cuda:1", "cuda:1"), (1, "cpu", "cpu"), (0, "cpu", "cpu")],
    indirect=["gpus"],
)
def test_devices_that_are_there(gpus: int, name: str | None, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_device(name) == torch.device(expected)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("gpus", "name", "problem"),
    [
        (0, "cuda:0", "--device cuda:0: not there, torch sees 0 GPU"),
        (0, "cuda", "--device cuda: not there"),
        (1, "cuda:1", "--device cuda:1: not there, torch sees 1 GPU"),
        (1, "cuda:1000", "--device cuda:1000: not there"),
        (1, "garbage", "--device garbage: no such device"),
        (1, "cuda:-1", "--device cuda:-1: no such device"),
        (1, "mps", "only cuda and cpu are supported"),
    ],
    indirect=["gpus"],
)
def test_named_devices_that_are_not_there(gpus: int, name: str, problem: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve_device(name)
    assert problem in str(refused.value)


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_a_device_from_the_environment_is_a_named_one(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_DEVICE", "cuda:3")
    monkeypatch.setitem(config.OVERRIDDEN, "DEFAULT_DEVICE", "cuda:3")
    with pytest.raises(UsageError, match="cuda:3: not there"):
        resolve_device(None)


# --- Engines ---------------------------------------------------------------------------------------------------------
def test_an_engine_says_what_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "anomalycd")
    engine = load_engine("vit_demo", None, "cpu")
    (line,) = caplog.messages
    assert line == f"SAM vit_demo: {config.DEMO_CHECKPOINT} (demo weights, for synthetic scenes only) on cpu"
    assert engine.provenance["sam_model_type"] == "vit_demo"
    assert len(engine.provenance["sam_checkpoint_sha256"]) == 64


def test_an_unknown_model_type_is_refused() -> None:
    with pytest.raises(UsageError, match="vit_x: no such SAM model type; choose one of vit_b"):
        load_engine("vit_x", config.DEMO_CHECKPOINT, "cpu")


def test_the_demo_model_is_in_evaluation_mode(demo_model: Sam) -> None:
    assert not demo_model.training


@pytest.mark.parametrize("shape", WINDOWS)
def test_encoding_is_sams_own(demo_engine: SamEngine, demo_model: Sam, shape: str) -> None:
    window = WINDOWS[shape]
    predictor = SamPredictor(demo_model)
    predictor.set_image(window)
    features = demo_engine.encode(window)
    assert torch.equal(features.embedding, predictor.features)
    assert features.input_size == predictor.input_size
    assert features.window_size == window.shape[:2]
    assert not features.embedding.requires_grad


def stock_masks(model: Sam, image: np.ndarray, parameters: dict[str, Any]) -> list[np.ndarray]:
    return [found["segmentation"] for found in SamAutomaticMaskGenerator(model, **parameters).generate(image)]


@pytest.mark.parametrize("crop_n_layers", [0, 1])
@pytest.mark.parametrize("shape", WINDOWS)
def test_masks_are_sams_own(demo_engine: SamEngine, demo_model: Sam, shape: str, crop_n_layers: int) -> None:
    window, parameters = WINDOWS[shape], FEW_POINTS | {"crop_n_layers": crop_n_layers}
    masks = demo_engine.generate_masks(window, demo_engine.encode(window), parameters)
    expected = stock_masks(demo_model, window, parameters)
    assert expected
    assert len(masks) == len(expected)
    for mask, own in zip(masks, expected, strict=True):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, own)


@pytest.mark.parametrize(("crop_n_layers", "passes"), [(0, 1), (1, 5)])  # layer 1 adds four crops
def test_a_window_is_encoded_once(demo_engine: SamEngine, demo_model: Sam, crop_n_layers: int, passes: int) -> None:
    encoded: list[torch.Size] = []
    counting = demo_model.image_encoder.register_forward_hook(lambda _, inputs, __: encoded.append(inputs[0].shape))
    try:
        features = demo_engine.encode(SCENE)
        demo_engine.generate_masks(SCENE, features, FEW_POINTS | {"crop_n_layers": crop_n_layers})
    finally:
        counting.remove()
    assert len(encoded) == passes


@pytest.mark.parametrize("grey", [0, 128])
def test_a_window_may_have_no_masks(demo_engine: SamEngine, grey: int) -> None:
    window = np.full((64, 48, 3), grey, np.uint8)
    parameters = config.STAGE1_SAM_PARAMS | {"points_per_side": 4, "pred_iou_thresh": 2.0}  # nothing is that sure
    assert demo_engine.generate_masks(window, demo_engine.encode(window), parameters) == []


def test_a_constant_window_is_no_error(demo_engine: SamEngine) -> None:
    window = np.full((64, 64, 3), 128, np.uint8)
    masks = demo_engine.generate_masks(window, demo_engine.encode(window), FEW_POINTS)
    assert all(mask.shape == (64, 64) for mask in masks)


@pytest.mark.parametrize("parameters", [{"point_per_side": 4}, {"points_per_side": None}, {"points_per_side": "4"}])
def test_mask_parameters_that_sam_does_not_take(demo_engine: SamEngine, parameters: dict[str, Any]) -> None:
    window = SCENE[:32, :32]
    with pytest.raises(UsageError, match="SAM does not take these mask parameters"):
        demo_engine.generate_masks(window, demo_engine.encode(window), parameters)
