"""MobileSAM's encoder: equal to the authors' code, and every weight that is loaded counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything.modeling import Sam

from sam.models import load_model
from sam.registry import SAM_VARIANTS
from sam.tiny_vit import AttentionBlock
from utils import UsageError

UNUSED = {  # in the authors' file; no output depends on them
    "image_encoder.norm_head.weight": (320,),
    "image_encoder.norm_head.bias": (320,),
    "image_encoder.head.weight": (1000, 320),
    "image_encoder.head.bias": (1000,),
}


def randomize(module: Any) -> None:
    """Set all weights, and the statistics of the batch norms, to random values of useful sizes."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weights in module.state_dict().items():
            if name.endswith("running_var"):
                weights.uniform_(0.5, 2)
            elif weights.is_floating_point():
                weights += torch.randn_like(weights) * (0.5 if name.endswith("attention_biases") else 0.05)


@pytest.fixture(scope="module", autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> Sam:
    made = SAM_VARIANTS["vit_t"].build()
    randomize(made)
    return made


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    torch.manual_seed(4)
    return torch.randn(1, 3, 1024, 1024)


@pytest.fixture(scope="module")
def features(model: Sam, pixels: torch.Tensor) -> torch.Tensor:
    return model.image_encoder(pixels)


def save(model: Sam, path: Path, **changes: torch.Tensor) -> Path:
    """Save a model's weights with those that only the authors' file has."""
    torch.manual_seed(5)
    torch.save({**model.state_dict(), **{name: torch.randn(shape) for name, shape in UNUSED.items()}, **changes}, path)
    return path


def test_features_equal_those_of_the_authors_code(mobile_sam: Path, pixels: torch.Tensor) -> None:
    pytest.importorskip("timm", reason="pip install --no-deps mobilesam-mirror==1.0.0 timm huggingface_hub safetensors")
    authors = pytest.importorskip("mobile_sam")
    model, theirs = load_model("vit_t", mobile_sam), authors.sam_model_registry["vit_t"]()
    theirs.load_state_dict(torch.load(mobile_sam, weights_only=True))
    theirs.train().eval()  # their biases are those of the moment of this call
    features = model.image_encoder(pixels)
    assert features.shape == (1, 256, 64, 64)
    torch.testing.assert_close(features, theirs.image_encoder(pixels), rtol=1e-5, atol=1e-5)
    assert not set(theirs.state_dict()) - set(model.state_dict()) - set(UNUSED)


@pytest.mark.slow
def test_weights_loaded_after_the_model_was_built_are_used(
    model: Sam, pixels: torch.Tensor, features: torch.Tensor, tmp_path: Path
) -> None:
    loaded = load_model("vit_t", save(model, tmp_path / "mobile_sam.pt"))
    assert not loaded.training
    assert torch.equal(loaded.image_encoder(pixels), features)
    # The biases of the attention, which the authors' code caches too early, have an effect.
    for name, weights in loaded.named_parameters():
        if name.endswith("attention_biases"):
            weights.zero_()
    assert (loaded.image_encoder(pixels) - features).abs().max() > 1e-3


def test_loading_is_strict_about_all_weights_that_are_used(model: Sam, tmp_path: Path) -> None:
    path = save(model, tmp_path / "mobile_sam.pt", **{"image_encoder.neck.4.weight": torch.zeros(1)})
    with pytest.raises(UsageError, match="these are not vit_t weights"):
        load_model("vit_t", path)
    state = torch.load(save(model, path), weights_only=True)
    del state["image_encoder.layers.1.blocks.0.attn.attention_biases"]
    torch.save(state, path)
    with pytest.raises(UsageError, match="these are not vit_t weights"):
        load_model("vit_t", path)


def test_cells_see_others_in_their_window_only_where_no_convolution_mixes_them() -> None:
    torch.manual_seed(6)
    block = AttentionBlock(channels=128, heads=4, window=7)
    cells = torch.randn(1, 9, 9, 128)  # windows of 7 x 7 cells, padded to 14 x 14
    before = block._attend(cells)
    cells[0, 8, 8] += 1
    changed = (block._attend(cells) - before).abs().amax(3)[0] > 0
    assert changed[7:, 7:].all()
    assert not changed[:7].any()
    assert not changed[:, :7].any()
