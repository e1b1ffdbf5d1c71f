"""AnyChange's matching, by its definition, with the small SAM of the tests."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines import any_change
from demo.scenes import make_event
from sam.engine import SamEngine

EVENT = make_event(seed=4, category=4, size=128)


@pytest.fixture(autouse=True)
def few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    # The small SAM is unsure of its masks.
    few = replace(any_change.MASKS, points_per_side=6, pred_iou_thresh=0.2, stability_score_thresh=0.3)
    monkeypatch.setattr(any_change, "MASKS", few)


def test_the_angle_of_a_pixel_is_the_largest_of_its_masks(demo_engine: SamEngine) -> None:
    pair = (EVENT.historical[-1], EVENT.monitor)
    features = [demo_engine.encode([demo_engine.scale(image) for image in pair])[index] for index in (0, 1)]
    norm = demo_engine._model.image_encoder.neck[-1]
    weight, bias = (parameter.detach()[:, None, None] for parameter in (norm.weight, norm.bias))
    maps = [
        torch.nn.functional.interpolate((of_image.embedding - bias) / weight, (128, 128))[0].double().numpy()
        for of_image in features
    ]
    expected = np.zeros((128, 128))
    for image, of_image in zip(pair, features, strict=True):
        for mask in demo_engine.generator.generate(image, of_image, any_change.MASKS).collect():
            pixels = mask.full((128, 128))
            if pixels.mean() < 0.8:
                before, after = (of_date[:, pixels].mean(axis=1) for of_date in maps)
                cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
                expected[pixels] = np.maximum(expected[pixels], np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert expected.max() > 5
    np.testing.assert_allclose(any_change.window_angles(*pair, demo_engine), expected, atol=1e-3)


def test_equal_images_have_no_angle(demo_engine: SamEngine) -> None:
    found = any_change.window_angles(EVENT.monitor, EVENT.monitor, demo_engine)
    np.testing.assert_allclose(found, 0, atol=0.01)
