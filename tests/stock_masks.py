"""Masks of SamAutomaticMaskGenerator, and their comparison with those of an engine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from demo.scenes import make_event
from sam.engine import SamEngine
from sam.mask_generator import MaskParameters
from sam.masks import Mask

# Lower thresholds than published, so that the demo SAM finds masks with few points.
FEW_POINTS = {
    "points_per_side": 4,
    "pred_iou_thresh": 0.2,
    "stability_score_thresh": 0.2,
    "box_nms_thresh": 0.7,
    "min_mask_region_area": 20,
}
# All masks, including empty ones, whose stability is NaN: tests their order.
EVERYTHING = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0, "min_mask_region_area": 0}
SCENE = make_event(seed=3, category=4, size=160, historical_dates=1).monitor
# Share of a mask's pixels that rounding may move across the threshold.
MOVED_BY_ROUNDING = 1e-4


def engine_masks(engine: SamEngine, image: np.ndarray, parameters: dict[str, Any]) -> list[Mask]:
    (features,) = engine.encode([engine.scale(image)])
    return engine.generator.generate(image, features, MaskParameters.of(parameters)).collect()


def stock_masks(model: Sam, image: np.ndarray, parameters: dict[str, Any]) -> list[np.ndarray]:
    binary = parameters | {"output_mode": "binary_mask"}
    return [found["segmentation"] for found in SamAutomaticMaskGenerator(model, **binary).generate(image)]


def check_masks(found: Sequence[Mask], expected: Sequence[np.ndarray]) -> None:
    """Assert equal masks in the same order, up to one pixel in 10,000 of a mask, and at least one."""
    assert len(found) == len(expected)
    for mask, pixels in zip(found, expected, strict=True):
        full = mask.full(pixels.shape)
        assert full.dtype == bool
        assert mask.area == np.count_nonzero(full)
        assert np.count_nonzero(full != pixels) <= max(1, MOVED_BY_ROUNDING * np.count_nonzero(pixels))
