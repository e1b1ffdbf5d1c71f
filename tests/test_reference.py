"""The benchmarks' yardstick agrees with the project."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

import config
from benchmarks.reference import filter_change_map, stage1_window, stage2_window
from demo.scenes import make_event
from sam_engine import SamEngine
from stage1_analysis import change_map
from stage2_analysis import anomaly_map
from stage2_analysis import filter_change_map as project_filter

# Six points a side and lower thresholds than published, so that the toy finds masks in them, several in each image.
SAM_PARAMS = config.STAGE1_SAM_PARAMS | {
    "points_per_side": 6,
    "pred_iou_thresh": 0.3,
    "stability_score_thresh": 0.3,
    "box_nms_thresh": 0.7,
    "min_mask_region_area": 200,
}
MIN_PIXELS = 100
EVENT = make_event(seed=4, category=4, size=256, historical_dates=3)
# 161 and 203 pixels: where the padding begins, a cell of the encoder is cut.
WINDOWS = {
    "square": np.s_[:, :],
    "wide": np.s_[:161, :],
    "tall": np.s_[:, 10:213],
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Windows this small are too little to share: on a busy machine, threads wait for each other many times longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def project_change_map(engine: SamEngine, reference: np.ndarray, monitor: np.ndarray) -> np.ndarray:
    """What the project's stage 1 makes of a window."""
    of_reference, of_monitor = engine.encode(reference), engine.encode(monitor)
    return change_map(
        of_reference,
        of_monitor,
        engine.generate_masks(reference, of_reference, SAM_PARAMS),
        engine.generate_masks(monitor, of_monitor, SAM_PARAMS),
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
    np.testing.assert_array_equal(filtered, project_filter(expected, 0.3))
    anomalies = stage2_window(demo_model, historical, monitor, filtered, MIN_PIXELS, config.MAX_REGION_FRACTION)
    assert len(np.unique(anomalies)) > 4
    dates = [demo_engine.encode(image) for image in historical]
    expected = anomaly_map(filtered, dates, demo_engine.encode(monitor), MIN_PIXELS, config.MAX_REGION_FRACTION)
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
