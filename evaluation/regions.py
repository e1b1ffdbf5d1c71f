"""Measures the connected regions of stage 2's binary map."""

from typing import NamedTuple

import numpy as np
from skimage.measure import label as label_components

from eval_metrics import BinaryMap
from rasters.raster import Raster, strips


class Region(NamedTuple):
    """An 8-connected region of a binary map; pixels without data do not count in its values."""

    mean_score: float
    max_score: float
    pixels: int
    x: float  # centroid, pixels from the left edge
    y: float  # centroid, pixels from the upper edge


def measure_regions(binary: BinaryMap, scores: Raster) -> tuple[list[Region], np.ndarray]:
    """Return the regions of a binary map, highest mean score first, and a map of their numbers.

    The map of numbers, uint32, has the shape of the small map: 1 is the first region, 0 is no region.
    """
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
