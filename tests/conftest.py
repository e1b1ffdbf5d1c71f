"""The demo SAM, loaded once for all tests."""

import pytest
import torch
from segment_anything.modeling import Sam

import config
from sam_engine import SamEngine, load_model

# The demo SAM is too small to share: on a busy machine, its threads wait for each other many times longer.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_model() -> Sam:
    return load_model("vit_demo", config.DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def demo_engine(demo_model: Sam) -> SamEngine:
    return SamEngine(demo_model, torch.device("cpu"), {"sam_model_type": "vit_demo"})
