"""PCA and k-means: the neighbourhood of each pixel of the difference image, in two clusters.

T. Celik, "Unsupervised change detection in satellite images using principal component analysis and k-means clustering",
2009. The difference is that of the mean of the bands.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from baselines.dates import SAMPLE, Scored, read_bands
from img_io import Image
from rasters.raster import strips
from utils import EventError, Window

SIDE = 5  # of a neighbourhood, pixels
HALF = SIDE // 2
ENERGY = 0.9  # share of the variance that the components hold


@dataclass(frozen=True)
class Difference:
    """The absolute difference of the means of the bands, beyond its edges mirrored."""

    reference: Image
    monitor: Image

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.monitor.shape

    def read_around(self, window: Window) -> np.ndarray:
        """Read a window and HALF pixels around it, (h + 4, w + 4) float32; NaN where a date lacks data."""
        height, width = self.shape
        x, y = max(window.x - HALF, 0), max(window.y - HALF, 0)
        right, bottom = min(window.x + window.width + HALF, width), min(window.y + window.height + HALF, height)
        before, after = (
            read_bands(image, Window(x, y, right - x, bottom - y)) for image in (self.reference, self.monitor)
        )
        difference = np.abs(after.mean(axis=2) - before.mean(axis=2))
        top, left = HALF - (window.y - y), HALF - (window.x - x)
        padding = (
            (top, window.height + 2 * HALF - len(difference) - top),
            (left, window.width + 2 * HALF - difference.shape[1] - left),
        )
        return np.pad(difference, padding, mode="reflect")


@dataclass(frozen=True)
class ClusterDistances:
    """How much farther a neighbourhood lies from the unchanged cluster than from the changed one: a ratio."""

    difference: Difference
    mean: np.ndarray  # (25,) of the neighbourhoods
    components: np.ndarray  # (D, 25)
    unchanged: np.ndarray  # (D,) centre of the cluster
    changed: np.ndarray  # (D,)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.difference.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the ratios of a window, (h, w) float32; NaN where a date lacks data."""
        around = self.difference.read_around(window)
        inner = np.s_[HALF:-HALF, HALF:-HALF]
        filled = np.nan_to_num(around)
        projected = (
            np.stack(
                [
                    cv2.filter2D(filled, cv2.CV_32F, component.reshape(SIDE, SIDE).astype(np.float32))[inner]
                    for component in self.components
                ],
                axis=2,
            )
            - self.components @ self.mean
        )
        far, near = (np.linalg.norm(projected - centre, axis=2) for centre in (self.unchanged, self.changed))
        ratios = (far / np.maximum(near, np.finfo(np.float32).tiny)).astype(np.float32)
        ratios[np.isnan(around[inner])] = np.nan
        return ratios


def pca_kmeans(reference: Image, monitor: Image) -> Scored:
    """Return the ratios of the distances; where both are equal, at 1, is the threshold.

    Components come from neighbourhoods side by side, clusters from those of every k-th pixel. Raises EventError if no
    pixel can be compared, or if all differences are equal.
    """
    difference = Difference(reference, monitor)
    apart, sampled = _neighbourhoods(difference)
    if not len(apart) or not len(sampled) or sampled.max() == sampled.min():
        raise EventError(f"{reference.path} and {monitor.path}: no pixels to compare, or none differs from another")
    pca = PCA(ENERGY, svd_solver="full").fit(apart)
    clusters = KMeans(2, n_init=10, random_state=0).fit(pca.transform(sampled))
    means = [sampled[clusters.labels_ == number].mean() for number in range(2)]
    unchanged, changed = clusters.cluster_centers_[np.argsort(means)]
    return Scored(ClusterDistances(difference, pca.mean_, pca.components_, unchanged, changed), 1.0)


def _neighbourhoods(difference: Difference) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbourhoods side by side, and those of every k-th row and column, (n, 25) each; none without data."""
    height, width = difference.shape
    step = int(np.ceil(np.sqrt(height * width * SIDE**2 / SAMPLE)))
    found: dict[int, list[np.ndarray]] = {SIDE: [], step: []}  # by the distance of neighbours
    for window in strips(difference.shape):
        views = np.lib.stride_tricks.sliding_window_view(difference.read_around(window), (SIDE, SIDE))
        for every, parts in found.items():
            parts.append(views[-window.y % every :: every, ::every].reshape(-1, SIDE**2))
    apart, sampled = (np.concatenate(found[every]).astype(np.float64) for every in (SIDE, step))
    return apart[~np.isnan(apart).any(axis=1)], sampled[~np.isnan(sampled).any(axis=1)]
