"""Regions that touch but differ in score."""

import numpy as np

from eval_metrics import BinaryMap
from evaluation.regions import SPLIT_STEP, measure_regions, split_components
from rasters.raster import MemoryRaster


def test_parts_that_differ_by_a_step_are_kept_apart() -> None:
    scores = np.zeros((6, 12), np.float32)
    scores[1:5, 1:4], scores[1:5, 4:7], scores[1:5, 7:10] = 0.93, 0.74, 0.1
    binary = BinaryMap(scores > 0, np.arange(6), np.arange(12))
    together, _ = measure_regions(binary, MemoryRaster(scores))
    assert [round(region.mean_score, 2) for region in together] == [0.59]
    regions, numbers = measure_regions(binary, MemoryRaster(scores), split=True)
    assert [round(region.mean_score, 2) for region in regions] == [0.93, 0.74, 0.1]
    assert [region.pixels for region in regions] == [12, 12, 12]
    assert numbers[2].tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 0]


def test_small_steps_stay_in_one_part() -> None:
    scores = np.array([[0.2, 0.2 + SPLIT_STEP / 2, 0.2 + SPLIT_STEP, 0.9]], np.float32)
    assert split_components(scores > 0, scores).tolist() == [[1, 1, 1, 2]]


def test_pixels_without_a_score_join_the_nearest_part() -> None:
    scores = np.array([[0.5, 0, np.nan, 0, 0.9, 0.9]], np.float32)
    flagged = np.array([[True, True, True, True, True, False]])
    numbers = split_components(flagged, scores)[0].tolist()
    assert numbers[0] == numbers[1] == 1
    assert numbers[3] == numbers[4] == 2
    assert numbers[5] == 0


def test_nothing_flagged_has_no_parts() -> None:
    assert not split_components(np.zeros((3, 4), bool), np.ones((3, 4), np.float32)).any()
