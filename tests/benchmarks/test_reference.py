"""The reference implementation of the benchmarks equals the project, and its random masks have realistic statistics."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from segment_anything.utils.amg import build_point_grid, calculate_stability_score

import config
from benchmarks.blobs import blob_masks, use_blobs
from benchmarks.programs import BlobDecoder
from benchmarks.reference import filter_change_map, stage1_window, stage2_window
from demo.scenes import make_event
from pipeline.filtered_map import filter_change_map as project_filter
from rasters.raster import MemoryRaster
from sam.engine import SamEngine
from sam.mask_generator import MaskParameters
from sam.models import load_model
from stage1_analysis import change_map
from stage2_analysis import anomaly_map
from tests.helpers import whole
from tests.stock_masks import engine_masks

# Six points per side and lower thresholds than published, so that the demo SAM finds several masks in each image.
SAM_PARAMS = config.STAGE1_SAM_PARAMS | {
    "points_per_side": 6,
    "pred_iou_thresh": 0.3,
    "stability_score_thresh": 0.3,
    "box_nms_thresh": 0.7,
    "min_mask_region_area": 200,
}
MIN_PIXELS = 100
EVENT = make_event(seed=4, category=4, size=256, historical_dates=3)
# 161 and 203 pixels: the padding begins inside a cell of the encoder.
WINDOWS = {
    "square": np.s_[:, :],
    "wide": np.s_[:161, :],
    "tall": np.s_[:, 10:213],
}
ENCODER_SIZE = 256


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    return torch.from_numpy(build_point_grid(32) * ENCODER_SIZE)


def project_change_map(engine: SamEngine, reference: np.ndarray, monitor: np.ndarray) -> np.ndarray:
    """The change map of a window by the project's stage 1."""
    of_reference, of_monitor = engine.encode([engine.scale(reference), engine.scale(monitor)])
    return change_map(
        of_reference,
        of_monitor,
        engine.generator.generate(reference, of_reference, MaskParameters.of(SAM_PARAMS)).collect(),
        engine.generator.generate(monitor, of_monitor, MaskParameters.of(SAM_PARAMS)).collect(),
        MIN_PIXELS,
        config.MAX_REGION_FRACTION,
    )


@pytest.mark.parametrize("window", WINDOWS)
def test_both_stages_equal_the_project(window: str, demo_model: Sam, demo_engine: SamEngine) -> None:
    *historical, monitor = (
        np.ascontiguousarray(image[WINDOWS[window]]) for image in (*EVENT.historical, EVENT.monitor)
    )
    changes, masks = stage1_window(
        demo_model, historical[-1], monitor, SAM_PARAMS, MIN_PIXELS, config.MAX_REGION_FRACTION
    )
    assert masks > 10
    assert len(np.unique(changes)) > 5
    expected = project_change_map(demo_engine, historical[-1], monitor)
    np.testing.assert_allclose(changes, expected, rtol=0, atol=1e-5)

    filtered = filter_change_map(expected, 0.3)
    np.testing.assert_array_equal(filtered, whole(project_filter(MemoryRaster(expected), 0.3)))
    anomalies = stage2_window(demo_model, historical, monitor, filtered, MIN_PIXELS, config.MAX_REGION_FRACTION)
    assert len(np.unique(anomalies)) > 4
    *dates, last = demo_engine.encode([demo_engine.scale(image) for image in (*historical, monitor)])
    expected = anomaly_map(filtered, dates, last, MIN_PIXELS, config.MAX_REGION_FRACTION)
    np.testing.assert_allclose(anomalies, expected, rtol=0, atol=1e-5)


def test_no_masks_give_zeros(demo_model: Sam) -> None:
    changes, masks = stage1_window(
        demo_model, EVENT.historical[-1], EVENT.monitor, SAM_PARAMS | {"pred_iou_thresh": 2.0}, MIN_PIXELS, 0.9
    )
    assert masks == 0
    np.testing.assert_array_equal(changes, np.zeros((256, 256), np.float32))
    np.testing.assert_array_equal(
        stage2_window(demo_model, EVENT.historical, EVENT.monitor, changes, MIN_PIXELS, 0.9), changes
    )


def test_blobs_do_not_depend_on_the_batch(points: torch.Tensor) -> None:
    logits, ious = blob_masks(points[300:364], ENCODER_SIZE, seed=1)
    assert (logits.shape, logits.dtype) == ((64, 3, 64, 64), torch.float32)
    assert (ious.shape, ious.dtype) == ((64, 3), torch.float32)
    for batch in (7, 64):
        parts = [blob_masks(part, ENCODER_SIZE, seed=1) for part in points[300:364].float().split(batch)]
        assert torch.equal(torch.cat([part[0] for part in parts]), logits)
        assert torch.equal(torch.cat([part[1] for part in parts]), ious)
    assert not torch.equal(blob_masks(points[300:364], ENCODER_SIZE, seed=2)[0], logits)


@pytest.mark.parametrize("seed", [0, 1])
def test_share_of_blobs_that_passes_the_filters(points: torch.Tensor, seed: int) -> None:
    logits, ious = blob_masks(points, ENCODER_SIZE, seed)
    assert -20 < logits.min() < -15
    assert 8 < logits.max() < 12
    stable = calculate_stability_score(logits.flatten(0, 1), 0.0, 1.0) >= 0.4
    assert 0.6 <= stable.float().mean() <= 0.7
    assert 0.37 <= (ious > 0.6).float().mean() <= 0.43


def test_realistic_number_of_blobs_passes_suppression() -> None:
    window = np.zeros((128, 128, 3), np.uint8)
    # A window of 2048 pixels at 1/16 of its size.
    parameters = config.STAGE1_SAM_PARAMS | {"min_mask_region_area": 10000 // 16**2}
    model = load_model("vit_demo", config.DEMO_CHECKPOINT)
    engine = SamEngine(model, torch.device("cpu"))
    engine.generator.decoder = BlobDecoder(model)
    masks = engine_masks(engine, window, parameters)
    assert 40 <= len(masks) <= 120
    areas = np.array([mask.area for mask in masks]) * 16**2
    assert 3e3 < np.median(areas) < 1e5
    assert areas.max() < 4e5


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_blob_per_predicted_iou(points: torch.Tensor, precision: torch.dtype) -> None:
    model = load_model("vit_demo", config.DEMO_CHECKPOINT)
    decoder = BlobDecoder(model)
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        engine = SamEngine(model, torch.device("cpu"))
        (features,) = engine.encode([engine.scale(EVENT.monitor)])
        image = decoder.image_side(features.embedding[0])
        # Of 3 x 256 masks, some have a predicted IoU that is above the threshold before it is rounded, or after.
        decoded = decoder.decode(image, points[:256].float(), iou_threshold=0.6)
    assert len(decoded.logits) == len(decoded.predicted_iou) > 0
    assert (decoded.predicted_iou > 0.6).all()


def test_a_compiled_decoder_gives_blobs_for_small_batches_too(
    monkeypatch: pytest.MonkeyPatch, points: torch.Tensor, demo_model: Sam
) -> None:
    monkeypatch.setattr(torch, "compile", lambda part, options: part)
    embedding = torch.zeros(demo_model.mask_decoder.transformer_dim, *demo_model.prompt_encoder.image_embedding_size)
    compiled, plain = BlobDecoder(demo_model, compiled=True), BlobDecoder(demo_model)
    image = plain.image_side(embedding)
    for batch in (points[:5].float(), points[5:8].float()):
        found, expected = (decoder.decode(image, batch, iou_threshold=0.6) for decoder in (compiled, plain))
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.predicted_iou, expected.predicted_iou)


def test_threads_draw_blobs_of_their_own_points(points: torch.Tensor, demo_model: Sam) -> None:
    embedding = torch.zeros(demo_model.mask_decoder.transformer_dim, *demo_model.prompt_encoder.image_embedding_size)
    decoder = BlobDecoder(demo_model)
    image, batches = decoder.image_side(embedding), points[:40].float().split([1, 3] * 10)

    def decode(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return decoder.decode(image, batch, iou_threshold=0.6).logits

    with ThreadPoolExecutor(4) as pool:
        for found, batch in zip(pool.map(decode, batches), batches, strict=True):
            assert torch.equal(found, decode(batch))


def test_use_blobs_restores_the_decoder(demo_model: Sam) -> None:
    generator = SamAutomaticMaskGenerator(demo_model, **SAM_PARAMS)
    before = generator.generate(EVENT.monitor)
    with use_blobs(demo_model, seed=0):
        between = generator.generate(EVENT.monitor)
    after = generator.generate(EVENT.monitor)
    assert len(after) == len(before)
    assert [mask["area"] for mask in after] == [mask["area"] for mask in before]
    assert [mask["area"] for mask in between] != [mask["area"] for mask in before]
