"""Every variant in the registry builds its model, names its weights, and runs in the engine as in segment_anything."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, Sam

import config
from sam.engine import SamEngine
from sam.execution import Execution
from sam.mask_generator import MaskParameters
from sam.memory import estimate_memory
from sam.registry import SAM_VARIANTS
from tests.stock_masks import EVERYTHING, SCENE, check_masks, stock_masks

ALL_MASKS = EVERYTHING | {"points_per_side": 2}  # three of each of four points


@pytest.mark.parametrize("name", SAM_VARIANTS)
def test_a_variant_builds_a_sam_in_evaluation_mode(name: str) -> None:
    with torch.device("meta"):  # shapes without weights, which would take 2.5 GB
        model = SAM_VARIANTS[name].build()
    assert isinstance(model, Sam)
    assert not model.training


@pytest.mark.parametrize("name", SAM_VARIANTS)
def test_weights_are_included_or_published_with_a_sha256(name: str) -> None:
    variant = SAM_VARIANTS[name]
    if variant.published is None:
        assert Path(variant.weights).is_file()
    else:
        assert Path(variant.weights).name == variant.weights
        assert variant.published.url.startswith("https://")
        assert variant.published.url.endswith(f"/{variant.weights}")
        assert len(bytes.fromhex(variant.published.sha256)) == 32


def test_the_default_model_is_registered_with_the_default_file() -> None:
    assert config.SAM_CHECKPOINT.name == SAM_VARIANTS[config.SAM_MODEL_TYPE].weights


# --- The engine with every variant -----------------------------------------------------------------------------------
def build_shallow(monkeypatch: pytest.MonkeyPatch, name: str) -> Sam:
    """Build a variant with random weights; Meta's with one block. Their other blocks: tests/sam/test_attention.py."""

    def shallow(**settings: Any) -> ImageEncoderViT:
        return ImageEncoderViT(**settings | {"depth": 1, "global_attn_indexes": ()})

    monkeypatch.setattr(sys.modules["segment_anything.build_sam"], "ImageEncoderViT", shallow)
    torch.manual_seed(8)
    model = SAM_VARIANTS[name].build()
    with torch.no_grad():
        for weights in model.parameters():
            weights += torch.randn_like(weights) * 0.05  # relative positions and biases are 0 at first
        model.mask_decoder.iou_prediction_head.layers[-1].bias += 10  # so that no mask is filtered out
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", SAM_VARIANTS)
def test_features_and_masks_equal_those_of_segment_anything(
    monkeypatch: pytest.MonkeyPatch, one_thread: None, name: str
) -> None:
    stock, model = build_shallow(monkeypatch, name), build_shallow(monkeypatch, name)
    engine = SamEngine(model, torch.device("cpu"), kind=SAM_VARIANTS[name].encoder_kind())
    encoded: list[torch.Tensor] = []
    stock.image_encoder.register_forward_hook(lambda _, __, output: encoded.append(output))
    expected = stock_masks(stock, SCENE, ALL_MASKS)
    (features,) = engine.encode([engine.scale(SCENE)])
    assert features.embedding.shape == encoded[0].shape
    assert (features.embedding - encoded[0]).abs().max() < 1e-4
    masks = engine.generator.generate(SCENE, features, MaskParameters.of(ALL_MASKS)).collect()
    assert len(masks) == 12
    check_masks(masks, expected)


@pytest.mark.parametrize("name", SAM_VARIANTS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_of_every_variant_is_estimated(name: str, device: str) -> None:
    memory = estimate_memory(name, device, Execution(), 2048**2)
    used = memory.device_bytes or memory.host_bytes
    assert 0.3 < used / 2**30 < 16
