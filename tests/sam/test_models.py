"""models.py: weights are read as data only, and other files are refused in one line."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam

import config
from sam.models import load_model
from utils import UsageError


def refusal(checkpoint: Path, model_type: str = "vit_demo") -> str:
    """The error message for a file of weights: one line that names the file."""
    with pytest.raises(UsageError) as refused:
        load_model(model_type, checkpoint)
    message = str(refused.value)
    assert message.startswith(f"{checkpoint}: ")
    assert "\n" not in message
    return message


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    assert "not found" in refusal(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(tmp_path: Path, share: float) -> None:
    content = config.DEMO_CHECKPOINT.read_bytes()
    path = tmp_path / "cut_off.pth"
    path.write_bytes(content[: int(len(content) * share)])
    assert "damaged or cut off" in refusal(path)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_text("<html>404 Not Found</html>\n")
    assert "not a plain state dict" in refusal(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path)


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=40), header=st.sampled_from([b"", b"\x80\x02", b"\x80\x02}q\x00(", b"PK\x03\x04"]))
def test_a_file_of_random_bytes_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, header: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_bytes.pth"
    path.write_bytes(header + content)
    refusal(path)


class CodeOnUnpickling:
    """An object that runs a command when it is unpickled without restrictions."""

    def __init__(self, written: Path) -> None:
        self._written = written

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the command for the pickle."""
        return os.mkdir, (str(self._written),)


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_weights_is_not_run(tmp_path: Path, archive: bool) -> None:
    path, written = tmp_path / "intruder.pth", tmp_path / "written"
    content = {"image_encoder.pos_embed": CodeOnUnpickling(written)}
    if archive:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    assert "it contains code" in refusal(path)
    assert not written.exists()


def test_weights_of_another_architecture_are_refused() -> None:
    message = refusal(config.DEMO_CHECKPOINT, "vit_b")
    assert "these are not vit_b weights" in message
    assert "--sam-model-type" in message


def test_incomplete_weights_are_refused(tmp_path: Path, demo_model: Sam) -> None:
    state = demo_model.state_dict()
    state.popitem()
    torch.save(state, tmp_path / "incomplete.pth")
    assert "these are not vit_demo weights" in refusal(tmp_path / "incomplete.pth")


@pytest.mark.parametrize("content", [{}, [1, 2], torch.zeros(3), {1: torch.zeros(3)}, {"model": {}}, None])
def test_data_other_than_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "data.pth")
    assert "these are not vit_demo weights" in refusal(tmp_path / "data.pth")


def test_old_torch_without_safe_loading_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(UsageError, match=r"torch 2.9.1 cannot load weights safely; install torch >= 2.10"):
        load_model("vit_demo", config.DEMO_CHECKPOINT)


def test_the_demo_model_is_in_evaluation_mode(demo_model: Sam) -> None:
    assert not demo_model.training
