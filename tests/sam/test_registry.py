"""Every variant in the registry builds its model and names its weights."""

from pathlib import Path

import pytest
import torch
from segment_anything.modeling import Sam

import config
from sam.registry import SAM_VARIANTS


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
