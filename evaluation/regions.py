"""Measures the connected regions of stage 2's binary map."""

from typing import NamedTuple

import numpy as np
from skimage.measure import label as label_components
from skimage.segmentation import expand_labels

from eval_metrics import BinaryMap
from rasters.raster import Raster, strips
from rasters.resize import resize_nearest

SPLIT_STEP = 0.05  # of the score: neighbouring pixels that differ by more belong to different parts


class Region(NamedTuple):
    """An 8-connected region of a binary map; pixels without data do not count in its values."""

    mean_score: float
    max_score: float
    pixels: int
    x: float  # centroid, pixels from the left edge
    y: float  # centroid, pixels from the upper edge


def split_components(flagged: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Number the 4-connected regions of pixels between which the score changes by at most SPLIT_STEP, from 1.

    Pixels without a score, or with 0, such as those that the evaluation's closing added, join the nearest region.

    `flagged`: (h, w) bool. `scores`: (h, w) float32, NaN where there is no data. Returns (h, w) int64, 0 for no region.
    """
    height, width = flagged.shape
    scored = flagged & (np.nan_to_num(scores) > 0)
    # Pixels, and between them the links of neighbours with similar scores.
    linked = np.zeros((2 * height - 1, 2 * width - 1), bool)
    linked[::2, ::2] = scored
    with np.errstate(invalid="ignore"):
        linked[1::2, ::2] = scored[1:] & scored[:-1] & (np.abs(np.diff(scores, axis=0)) <= SPLIT_STEP)
        linked[::2, 1::2] = scored[:, 1:] & scored[:, :-1] & (np.abs(np.diff(scores, axis=1)) <= SPLIT_STEP)
    numbers = label_components(linked, connectivity=1)[::2, ::2]
    return np.where(flagged, expand_labels(numbers, max(flagged.shape)), 0)


def measure_regions(binary: BinaryMap, scores: Raster, split: bool = False) -> tuple[list[Region], np.ndarray]:
    """Return the regions of a binary map, highest mean score first, and a map of their numbers.

    `split`: parts of a region whose scores differ by a step are regions of their own, see `split_components`.

    The map of numbers, uint32, has the shape of the small map: 1 is the first region, 0 is no region.
    """
    if split:
        components = split_components(binary.small, resize_nearest(scores, binary.small.shape))
    else:
        components = label_components(binary.small, connectivity=2)  # 8 neighbours
    count = int(components.max()) + 1
    sums, highest = np.zeros((4, count)), np.full(count, -np.inf)
    for window in strips(binary.shape):
        values = scores.read(window)
        rows, columns = window.slices
        numbers = components[np.ix_(binary.rows[rows], binary.columns[columns])]
        y, x = np.nonzero((numbers > 0) & ~np.isnan(values))
        number, value = numbers[y, x], values[y, x].astype(float)
        for total, weights in zip(sums, (np.ones(len(x)), value, x + 0.5, window.y + y + 0.5), strict=True):
            total += np.bincount(number, weights, minlength=count)
        np.maximum.at(highest, number, value)
    found = [number for number in range(1, count) if sums[0, number]]
    found.sort(key=lambda number: (-sums[1, number] / sums[0, number], -sums[0, number]))
    new_numbers = np.zeros(count, np.uint32)
    new_numbers[found] = np.arange(1, len(found) + 1)
    regions = []
    for number in found:
        pixels, total, x, y = sums[:, number].tolist()
        regions.append(Region(total / pixels, float(highest[number]), int(pixels), x / pixels, y / pixels))
    return regions, new_numbers[components]
