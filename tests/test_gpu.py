"""On a GPU: maps equal those of the CPU up to rounding, and memory is bounded. Needs no GDAL."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch

import config
from demo.scenes import SyntheticEvent, make_event
from pipeline.filtered_map import filter_change_map
from rasters.raster import MemoryRaster
from sam.engine import SamEngine
from sam.execution import Execution
from sam.mask_generator import MaskParameters, pack_bits
from sam.models import load_model
from sam.registry import SAM_VARIANTS
from stage1_analysis import change_map
from stage2_analysis import anomaly_map
from tests.helpers import whole
from tests.stock_masks import check_masks, engine_masks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

GIB = 1 << 30
PARAMETERS = config.STAGE1_SAM_PARAMS | {"points_per_side": 16, "min_mask_region_area": 1000}
# SHARE of the pixels must agree within TOLERANCE: rounding can move a mask's edge by a pixel.
SHARE, TOLERANCE = 0.999, 1e-4


@cache
def scenes() -> SyntheticEvent:
    """Created on first use: machines without a GPU skip these tests."""
    return make_event(seed=3, category=4, size=1024, historical_dates=2)


def demo_engine_on(device: str, precision: str = "fp32") -> SamEngine:
    model = load_model("vit_demo", config.DEMO_CHECKPOINT)
    return SamEngine(model, torch.device(device), Execution(precision))


@pytest.fixture(scope="module")
def cpu() -> SamEngine:
    return demo_engine_on("cpu")


@pytest.fixture(scope="module")
def gpu() -> Iterator[SamEngine]:
    # As in load_engine: by default, torch rounds convolutions to 10 bits.
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield demo_engine_on("cuda:0")
    torch.backends.cudnn.allow_tf32 = allowed


def changes_of(engine: SamEngine) -> np.ndarray:
    """Stage 1's map of the scenes."""
    before, after = scenes().historical[-1], scenes().monitor
    features = engine.encode([engine.scale(before), engine.scale(after)])
    pending = [
        engine.generator.generate(image, encoded, MaskParameters.of(PARAMETERS))
        for image, encoded in zip((before, after), features, strict=True)
    ]
    masks_before, masks_after = (waiting.collect() for waiting in pending)
    return change_map(features[0], features[1], masks_before, masks_after, min_mask_pixels=300, max_region_fraction=0.9)


def anomalies_of(engine: SamEngine, changes: np.ndarray) -> np.ndarray:
    """Stage 2's map of the scenes."""
    *historical, monitor = engine.encode([engine.scale(image) for image in (*scenes().historical, scenes().monitor)])
    filtered = whole(filter_change_map(MemoryRaster(changes), config.STAGE2_CHANGE_MAP_QUANTILE))
    return anomaly_map(filtered, historical, monitor, min_region_pixels=300, max_region_fraction=0.9)


@pytest.fixture(scope="module")
def cpu_changes(cpu: SamEngine) -> np.ndarray:
    return changes_of(cpu)


def share_within(found: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    assert found.dtype == expected.dtype == np.float32
    return float(np.mean(np.abs(found - expected) <= tolerance))


def test_features_equal_those_of_the_cpu(cpu: SamEngine, gpu: SamEngine) -> None:
    (expected,), (found,) = (engine.encode([engine.scale(scenes().monitor)]) for engine in (cpu, gpu))
    assert found.embedding.device.type == "cuda"
    assert (found.embedding.cpu() - expected.embedding).abs().max() < 1e-4


@pytest.mark.parametrize("crop_n_layers", [0, 1])
@pytest.mark.parametrize("size", [(1024, 1024), (512, 1024), (700, 900), (300, 200)])
def test_masks_equal_those_of_the_cpu(
    cpu: SamEngine, gpu: SamEngine, size: tuple[int, int], crop_n_layers: int
) -> None:
    image = scenes().monitor[: size[0], : size[1]]
    parameters = PARAMETERS | {"points_per_side": 8, "crop_n_layers": crop_n_layers}
    expected = engine_masks(cpu, image, parameters)
    assert expected
    check_masks(engine_masks(gpu, image, parameters), [mask.full(size) for mask in expected])


def test_maps_equal_those_of_the_cpu(cpu: SamEngine, gpu: SamEngine, cpu_changes: np.ndarray) -> None:
    assert cpu_changes.any()
    assert share_within(changes_of(gpu), cpu_changes, TOLERANCE) >= SHARE
    # From the same change map: regions are pixels of equal value, which rounding would split.
    expected = anomalies_of(cpu, cpu_changes)
    assert expected.any()
    assert share_within(anomalies_of(gpu, cpu_changes), expected, TOLERANCE) >= SHARE


def test_maps_are_reproducible(gpu: SamEngine) -> None:
    assert share_within(changes_of(gpu), changes_of(gpu), TOLERANCE) >= SHARE


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_gives_nearly_the_same_map(cpu_changes: np.ndarray, precision: str) -> None:
    changes = changes_of(demo_engine_on("cuda:0", precision))
    # Masks near a threshold may be kept or dropped. Bounds are for bf16 with 8 bits; fp16 has 11.
    assert share_within(changes, cpu_changes, 0.05) >= 0.9
    assert abs(float(changes.mean()) - float(cpu_changes.mean())) < 0.02


def test_masks_are_copied_to_the_host(gpu: SamEngine) -> None:
    random = np.random.default_rng(0)
    masks = [random.random(size) < 0.5 for size in ((1, 1), (3, 5), (8, 16), (701, 333))]
    on_device = [(torch.from_numpy(mask).cuda(), 2, 7) for mask in masks]
    for found, mask in zip(gpu.generator._to_host(on_device), masks, strict=True):
        np.testing.assert_array_equal(found.pixels, mask)
        assert (found.box.x, found.box.y, found.area) == (2, 7, mask.sum())
    flat = torch.from_numpy(np.concatenate([mask.ravel() for mask in masks]))
    assert torch.equal(pack_bits(flat.cuda()).cpu(), pack_bits(flat))


# Random weights and no score thresholds: no mask is dropped, so that masks take the maximum memory.
@pytest.mark.parametrize("model_type", ["vit_demo", "vit_b"])
def test_a_published_window_takes_less_than_6_gib(model_type: str) -> None:
    torch.manual_seed(0)
    engine = SamEngine(SAM_VARIANTS[model_type].build(), torch.device("cuda:0"))
    image = np.tile(scenes().monitor, (2, 2, 1))
    torch.cuda.reset_peak_memory_stats()
    everything = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    engine_masks(engine, image, config.STAGE1_SAM_PARAMS | everything)
    assert torch.cuda.max_memory_allocated() < 6 * GIB
