"""AnyChange's matching, by its definition, with the small SAM of the tests."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import config
from baselines import any_change
from demo.scenes import make_event
from img_io import open_event
from rasters.geotiff import GeoTiff
from sam.engine import SamEngine, ScaledImage
from sam.features import WindowFeatures
from tests.helpers import whole
from tests.scripts import FIRE
from tests.tiffs import write_tiff
from utils import Window, read_event

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


def test_a_window_without_data_is_not_encoded(
    demo_engine: SamEngine, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data_root / FIRE / "anomaly_20210720.tif"
    values = GeoTiff(path).read_bands([1, 2, 3], Window(0, 0, 256, 256))
    values[:130, 126:] = 0
    write_tiff(path, values, nodata=0)
    monkeypatch.setattr(config, "STAGE1_PATCH_SIZE", 130)
    encoded: list[int] = []

    def encode(images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        encoded.append(len(images))
        return SamEngine.encode(demo_engine, images)

    monkeypatch.setattr(demo_engine, "encode", encode)
    images = open_event(read_event(data_root / FIRE))
    scores = whole(any_change.any_change(images, demo_engine, tmp_path / "angles"))
    assert encoded == [2, 2, 2]  # of four windows
    assert np.isnan(scores[:130, 126:]).all()
    assert np.isnan(scores).sum() == 130 * 130
