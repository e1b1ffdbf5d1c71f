"""engine.py: features and masks equal those of segment_anything, with one encoder pass per image and any batch size."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor

import config
from demo.scenes import make_event
from sam.engine import SamEngine
from sam.execution import Execution
from sam.features import WindowFeatures
from sam.mask_generator import MaskParameters, pack_bits
from sam.masks import Mask
from sam.models import load_model
from sam.prompt_decoder import DecodedMasks
from tests.helpers import property_test
from tests.stock_masks import EVERYTHING, FEW_POINTS, SCENE, check_masks, engine_masks, stock_masks
from tests.tiny_sam import tiny_sam
from utils import EventError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

LARGE_SCENE = make_event(seed=3, category=4, size=1100, historical_dates=1).monitor
SMALL_WINDOWS = {
    "square": SCENE,
    "wide": SCENE[:90],
    "tall": SCENE[:, 90:],
    "fewer pixels than cells": SCENE[:25, :31],
    "hardly any pixels": SCENE[60:66, 60:69],
}
LARGE_WINDOWS = {  # the encoder's input is 512 pixels
    "the encoder's input": LARGE_SCENE[:512, :512],
    "twice the encoder's input": LARGE_SCENE[:1024, :1024],
    "twice the encoder's input, wide": LARGE_SCENE[:512, :1024],
    "a broken factor, wide": LARGE_SCENE[:700, :1100],
    "a broken factor, tall": LARGE_SCENE[:1000, :300],
}
WINDOWS = SMALL_WINDOWS | LARGE_WINDOWS

GRID = [[0.5, 0.5], [0.2, 0.7], [0.9, 0.1]]
PARAMETERS: dict[str, dict[str, Any]] = {
    "few points": {},
    "everything": EVERYTHING,
    "one point": {"points_per_side": 1},
    "seven points a side": {"points_per_side": 7},
    "any IoU": {"pred_iou_thresh": 0.0},
    "any stability": {"stability_score_thresh": 0.0},
    "high thresholds": {"pred_iou_thresh": 0.6, "stability_score_thresh": 0.6},
    "near levels": {"stability_score_offset": 0.3, "stability_score_thresh": 0.8},
    "strict NMS": {"box_nms_thresh": 0.3},
    "two NMS thresholds": {"box_nms_thresh": 0.9, "crop_nms_thresh": 0.2},  # the larger one applies after the clean-up
    "no clean-up": {"min_mask_region_area": 0},
    "wide clean-up": {"min_mask_region_area": 400},
    "clean-up as published": {"min_mask_region_area": 10_000},
    "as published": config.STAGE1_SAM_PARAMS | {"points_per_side": 6},
    "a grid": {"points_per_side": None, "point_grids": [np.array(GRID)]},
    "a grid from the environment": {"points_per_side": None, "point_grids": [GRID]},  # JSON has lists
    "64 points a batch": {"points_per_batch": 64},
    "run-length output": {"output_mode": "uncompressed_rle"},
    "one crop layer": {"crop_n_layers": 1},
    "two crop layers": {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
    "crops of little overlap": {"crop_n_layers": 1, "crop_nms_thresh": 0.2, "crop_overlap_ratio": 0.1},
    "everything in crops": EVERYTHING | {"points_per_side": 3, "crop_n_layers": 1, "crop_nms_thresh": 1.0},
}
SOME_PARAMETERS = ("few points", "everything", "as published", "one crop layer")
QUICK_PAIRS = [("square", "as published"), *((window, "few points") for window in SMALL_WINDOWS)]
PAIRS = [
    *(("square", parameters) for parameters in PARAMETERS),
    *((window, parameters) for window in list(SMALL_WINDOWS)[1:] for parameters in SOME_PARAMETERS),
    *((window, parameters) for window in LARGE_WINDOWS for parameters in ("few points", "any stability")),
    *((window, "clean-up as published") for window in ("a broken factor, wide", "twice the encoder's input")),
]


def engine_of(**execution: Any) -> SamEngine:
    model = load_model("vit_demo", config.DEMO_CHECKPOINT)
    return SamEngine(model, torch.device("cpu"), Execution(**execution))


# --- Encoding --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", WINDOWS)
def test_features_equal_those_of_segment_anything(demo_engine: SamEngine, demo_model: Sam, window: str) -> None:
    image = WINDOWS[window]
    predictor = SamPredictor(demo_model)
    predictor.set_image(image)
    (features,) = demo_engine.encode([demo_engine.scale(image)])
    assert features.embedding.shape == predictor.features.shape
    assert features.embedding.dtype == torch.float32
    assert (features.embedding - predictor.features).abs().max() < 1e-4
    assert features.input_size == predictor.input_size
    assert features.window_size == image.shape[:2]
    assert not features.embedding.requires_grad


@pytest.mark.parametrize("encode_batch", [1, 2, 3])
def test_features_do_not_depend_on_the_batch(demo_engine: SamEngine, encode_batch: int) -> None:
    scaled = [demo_engine.scale(image) for image in (SCENE[:90], SCENE[70:], SCENE[20:110])]
    together = engine_of(encode_batch=encode_batch).encode(scaled)
    assert len(together) == 3
    for image, features in zip(scaled, together, strict=True):
        (alone,) = demo_engine.encode([image])
        assert features.embedding.shape == (1, *alone.embedding.shape[1:])
        assert (features.embedding - alone.embedding).abs().max() < 1e-5
        assert features.window_size == (90, 160)


def test_no_images_give_no_features(demo_engine: SamEngine) -> None:
    assert demo_engine.encode([]) == []


def encoder_batches(engine: SamEngine, image: np.ndarray, parameters: dict[str, Any]) -> list[int]:
    """Number of images in each encoder pass while the masks of an image are generated."""
    batches: list[int] = []
    counting = engine._model.image_encoder.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    try:
        engine_masks(engine, image, parameters)
    finally:
        counting.remove()
    return batches


# The layers add 4 and 16 crops.
@pytest.mark.parametrize(("crop_n_layers", "images"), [(0, 1), (1, 5), pytest.param(2, 21, marks=pytest.mark.slow)])
def test_a_window_and_its_crops_are_encoded_once(demo_engine: SamEngine, crop_n_layers: int, images: int) -> None:
    parameters = FEW_POINTS | {"crop_n_layers": crop_n_layers, "points_per_side": 1}
    assert sum(encoder_batches(demo_engine, SCENE, parameters)) == images


# --- Masks -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("window", "parameters"),
    [pytest.param(*pair, marks=() if pair in QUICK_PAIRS else pytest.mark.slow) for pair in PAIRS],
)
def test_masks_equal_those_of_segment_anything(
    demo_engine: SamEngine, demo_model: Sam, window: str, parameters: str
) -> None:
    image, settings = WINDOWS[window], FEW_POINTS | PARAMETERS[parameters]
    check_masks(engine_masks(demo_engine, image, settings), stock_masks(demo_model, image, settings))


@pytest.mark.slow
@pytest.mark.parametrize("window", ["square", "hardly any pixels"])
@pytest.mark.parametrize("min_mask_region_area", [0, 10_000])
@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_empty_masks_equal_those_of_segment_anything(
    demo_engine: SamEngine,
    demo_model: Sam,
    monkeypatch: pytest.MonkeyPatch,
    window: str,
    min_mask_region_area: int,
    crop_n_layers: int,
) -> None:
    # Without a stability threshold, empty masks, whose stability is 0 / 0, are kept; also in crops.
    for model in (demo_engine._model, demo_model):
        monkeypatch.setattr(model, "mask_threshold", 9.0)
    settings = EVERYTHING | {"min_mask_region_area": min_mask_region_area, "crop_n_layers": crop_n_layers}
    settings |= {"points_per_side": 2, "crop_nms_thresh": 1.0}
    found = engine_masks(demo_engine, WINDOWS[window], settings)
    if min_mask_region_area < 10_000:
        assert sum(mask.area == 0 for mask in found) > 1
    check_masks(found, stock_masks(demo_model, WINDOWS[window], settings))


@pytest.mark.slow
def test_empty_masks_in_inner_crops_equal_those_of_segment_anything(
    demo_engine: SamEngine, demo_model: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The offset of inner crops of the second layer exceeds their height.
    for model in (demo_engine._model, demo_model):
        monkeypatch.setattr(model, "mask_threshold", 9.0)
    settings = EVERYTHING | {"points_per_side": 1, "crop_n_layers": 2, "crop_nms_thresh": 1.0}
    window = SCENE[:24, :24]
    check_masks(engine_masks(demo_engine, window, settings), stock_masks(demo_model, window, settings))


def test_masks_are_found_in_the_test_windows(demo_engine: SamEngine) -> None:
    # Otherwise the tests above would compare empty lists.
    for window in ("square", "wide", "tall", "fewer pixels than cells"):
        assert len(engine_masks(demo_engine, WINDOWS[window], FEW_POINTS)) > 5


def test_output_mode_is_ignored(demo_engine: SamEngine) -> None:
    check_same(
        engine_masks(demo_engine, SCENE, FEW_POINTS | {"output_mode": "coco_rle"}),
        engine_masks(demo_engine, SCENE, FEW_POINTS),
    )


def test_features_can_be_used_for_several_mask_searches(demo_engine: SamEngine, demo_model: Sam) -> None:
    (features,) = demo_engine.encode([demo_engine.scale(SCENE)])
    for parameters in ({"points_per_side": 2}, {"points_per_side": 4}):
        masks = demo_engine.generator.generate(SCENE, features, MaskParameters.of(FEW_POINTS | parameters)).collect()
        check_masks(masks, stock_masks(demo_model, SCENE, FEW_POINTS | parameters))


@pytest.mark.parametrize("grey", [0, 128])
@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_a_window_may_have_no_masks(demo_engine: SamEngine, grey: int, crop_n_layers: int) -> None:
    window = np.full((64, 48, 3), grey, np.uint8)
    unreachable_iou = {"points_per_side": 2, "pred_iou_thresh": 2.0, "crop_n_layers": crop_n_layers}
    assert engine_masks(demo_engine, window, config.STAGE1_SAM_PARAMS | unreachable_iou) == []


def test_masks_of_a_constant_window_are_not_empty(demo_engine: SamEngine) -> None:
    window = np.full((64, 64, 3), 128, np.uint8)
    assert all(mask.full((64, 64)).any() for mask in engine_masks(demo_engine, window, FEW_POINTS))


@pytest.mark.parametrize(
    "parameters",
    [
        {"point_per_side": 4},
        {"points_per_side": None},
        {"points_per_side": "4"},
        {"points_per_side": 0},
        {"points_per_side": -1},
        {"points_per_side": 4, "point_grids": [GRID]},
        {"points_per_side": None, "point_grids": [GRID], "crop_n_layers": 1},  # no grid for the crops
        {"crop_n_layers": 1, "crop_n_points_downscale_factor": 64},  # no point a side
    ],
)
def test_invalid_mask_parameters_are_refused(demo_engine: SamEngine, parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="invalid SAM mask parameters"):
        engine_masks(demo_engine, SCENE[:32, :32], parameters)


# --- Reproducibility -------------------------------------------------------------------------------------------------
def check_same(found: list[Mask], expected: list[Mask]) -> None:
    """Assert that two lists of masks are equal bit for bit."""
    assert [mask.box for mask in found] == [mask.box for mask in expected]
    for mask, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask.pixels, other.pixels)


@pytest.fixture(scope="module")
def usual_masks(demo_engine: SamEngine, one_thread: None) -> list[Mask]:
    return engine_masks(demo_engine, SCENE, FEW_POINTS | {"points_per_side": 9})


def full_masks(masks: list[Mask]) -> list[np.ndarray]:
    return [mask.full(SCENE.shape[:2]) for mask in masks]


def test_masks_are_deterministic(demo_engine: SamEngine, usual_masks: list[Mask]) -> None:
    check_same(engine_masks(demo_engine, SCENE, FEW_POINTS | {"points_per_side": 9}), usual_masks)
    check_same(engine_masks(engine_of(), SCENE, FEW_POINTS | {"points_per_side": 9}), usual_masks)


@pytest.mark.parametrize("points_per_batch", [1, 7, 64, 256])
def test_masks_do_not_depend_on_points_per_batch(usual_masks: list[Mask], points_per_batch: int) -> None:
    engine = engine_of(points_per_batch=points_per_batch)
    check_masks(engine_masks(engine, SCENE, FEW_POINTS | {"points_per_side": 9}), full_masks(usual_masks))


def test_masks_do_not_depend_on_the_number_of_threads(
    demo_engine: SamEngine, usual_masks: list[Mask], one_thread: None
) -> None:
    torch.set_num_threads(2)
    try:
        found = engine_masks(demo_engine, SCENE, FEW_POINTS | {"points_per_side": 9})
    finally:
        torch.set_num_threads(1)
    check_masks(found, full_masks(usual_masks))


def test_pending_masks_can_be_collected_in_any_order(demo_engine: SamEngine) -> None:
    parameters = FEW_POINTS | {"min_mask_region_area": 100}
    images = [WINDOWS[name] for name in ("square", "wide", "tall")]
    encoded: list[WindowFeatures] = [demo_engine.encode([demo_engine.scale(image)])[0] for image in images]
    pending = [
        demo_engine.generator.generate(image, features, MaskParameters.of(parameters))
        for image, features in zip(images, encoded, strict=True)
    ]
    for image, waiting in zip(images[::-1], pending[::-1], strict=True):
        check_same(waiting.collect(), engine_masks(demo_engine, image, parameters))
        check_same(waiting.collect(), waiting.collect())


# --- Memory ----------------------------------------------------------------------------------------------------------
def test_masks_are_the_same_after_out_of_memory_in_the_decoder(
    monkeypatch: pytest.MonkeyPatch, usual_masks: list[Mask], caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(points_per_batch=64)
    decode, sizes = engine.generator.decoder.decode, []

    def decode_few(image: Any, points: Tensor, threshold: float) -> DecodedMasks:
        sizes.append(len(points))
        if len(points) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(image, points, threshold)

    monkeypatch.setattr(engine.generator.decoder, "decode", decode_few)
    found = engine_masks(engine, SCENE, FEW_POINTS | {"points_per_side": 9})
    assert sizes == [64, 32, 16, 16, 16, 16, 16, 1]
    check_masks(found, full_masks(usual_masks))
    (warning,) = caplog.messages
    assert "--points-per-batch 64" in warning


def test_features_are_the_same_after_out_of_memory_in_the_encoder(
    monkeypatch: pytest.MonkeyPatch, demo_engine: SamEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(encode_batch=4)
    encode = engine._encoder

    def encode_few(pixels: Tensor) -> Tensor:
        if len(pixels) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")
        return encode(pixels)

    monkeypatch.setattr(engine, "_encoder", encode_few)
    scaled = [engine.scale(SCENE[top : top + 60]) for top in (0, 40, 80, 100)]
    for features, image in zip(engine.encode(scaled), scaled, strict=True):
        assert (features.embedding - demo_engine.encode([image])[0].embedding).abs().max() < 1e-5
    (warning,) = caplog.messages
    assert "--encode-batch 4" in warning


def test_no_memory_for_a_single_point_is_an_event_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(points_per_batch=4)

    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.generator.decoder, "decode", no_memory)
    with pytest.raises(EventError, match="out of device memory at batch size 1"):
        engine_masks(engine, SCENE, FEW_POINTS)


@property_test
@given(arrays(bool, st.integers(0, 70)))
def test_pack_bits_equals_numpy(truth: np.ndarray) -> None:
    packed = pack_bits(torch.from_numpy(truth)).numpy()
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(packed, np.packbits(truth))
    np.testing.assert_array_equal(np.unpackbits(packed, count=len(truth)).view(bool), truth)


# --- Precision and compilation ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_gives_nearly_the_same_features(demo_engine: SamEngine, precision: str) -> None:
    engine = engine_of(precision=precision)
    (features,), (expected,) = (some.encode([some.scale(SCENE)]) for some in (engine, demo_engine))
    assert features.embedding.dtype == torch.float32
    assert not torch.equal(features.embedding, expected.embedding)  # the precision has an effect
    cells = torch.nn.functional.cosine_similarity(features.embedding, expected.embedding, dim=1)
    assert cells.min() > 0.99
    masks = engine.generator.generate(SCENE, features, MaskParameters.of(FEW_POINTS)).collect()
    assert len(masks) > 5
    assert abs(len(masks) - len(engine_masks(demo_engine, SCENE, FEW_POINTS))) <= 6


def test_the_number_of_threads_changes_no_mask(demo_engine: SamEngine) -> None:
    torch.set_num_threads(3)  # those of the engine's pool
    with SamEngine(load_model("vit_demo", config.DEMO_CHECKPOINT), torch.device("cpu")) as engine:
        torch.set_num_threads(1)
        masks, expected = (engine_masks(some, SCENE, FEW_POINTS) for some in (engine, demo_engine))
    assert len(masks) == len(expected) > 5
    for mask, same in zip(masks, expected, strict=True):
        assert np.array_equal(mask.full(SCENE.shape[:2]), same.full(SCENE.shape[:2]))


def features_with_neck(factor: float, precision: str) -> Tensor:
    """Features of a SAM the input of whose last norm is multiplied by `factor`, which the norm undoes."""
    model = tiny_sam()
    with torch.no_grad():
        model.image_encoder.neck[2].weight.mul_(factor)
    with SamEngine(model, torch.device("cpu"), Execution(precision)) as engine:
        return engine.encode([engine.scale(SCENE)])[0].embedding


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_channels_whose_squares_are_beyond_the_range_of_a_precision_count(precision: str) -> None:
    expected, found = (features_with_neck(1e3, name) for name in ("fp32", precision))
    assert torch.cosine_similarity(found, expected, dim=1).min() > 0.99


def test_features_beyond_the_range_of_a_precision_are_an_error() -> None:
    assert features_with_neck(1e9, "fp32").isfinite().all()
    with pytest.raises(EventError, match="features are not finite \\(fp16\\); use --precision fp32"):
        features_with_neck(1e9, "fp16")


def test_encoder_and_decoder_are_compiled_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def compile_nothing(part: Callable[..., Any], options: object) -> Callable[..., Any]:
        compiled.append(part)
        return part

    monkeypatch.setattr(torch, "compile", compile_nothing)
    engine_of()
    assert not compiled
    engine = engine_of(compile=True)
    decoder = engine.generator.decoder
    assert compiled == [engine._model.image_encoder, decoder._two_way_transformer, decoder._output_upscaling]


def test_compiled_parts_see_one_number_of_points(monkeypatch: pytest.MonkeyPatch, demo_engine: SamEngine) -> None:
    sizes: set[int] = set()

    def note_size(part: Callable[..., Any], options: object) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if len(arguments) == 2:  # of the decoder
                sizes.add(len(arguments[1]))
            return part(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", note_size)
    engine = engine_of(compile=True, points_per_batch=5)  # the last batch of 8 x 8 points has 4
    masks, expected = (engine_masks(some, SCENE, FEW_POINTS) for some in (engine, demo_engine))
    assert sizes == {5}
    assert len(masks) == len(expected) > 5
    check_masks(masks, [mask.full(SCENE.shape[:2]) for mask in expected])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_sam_gives_the_same_features_and_masks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # Without optimization, the C++ compiler takes half a minute less.
    monkeypatch.setattr(importlib.import_module("torch._inductor.config").aot_inductor, "debug_compile", True)
    engines = []
    for compile_it in (False, True):
        model = tiny_sam()
        model.image_encoder.blocks = model.image_encoder.blocks[1:]  # one of each kind: compiling takes seconds
        engines.append(SamEngine(model, torch.device("cpu"), Execution(compile=compile_it)))
    (expected,), (found,) = (engine.encode([engine.scale(SCENE)]) for engine in engines)
    torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-4, atol=1e-4)
    stock, compiled = (engine.generator.decoder for engine in engines)
    points = torch.rand(3, 2) * 64
    masks, same = (
        decoder.decode(decoder.image_side(expected.embedding[0]), points, 0.0) for decoder in (stock, compiled)
    )
    torch.testing.assert_close(same.logits, masks.logits, rtol=1e-4, atol=1e-4)
