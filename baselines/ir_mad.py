"""IR-MAD: differences of canonical variates, iterated with the weight of no change.

A. A. Nielsen, "The regularized iteratively reweighted MAD method for change detection in multi- and hyperspectral
data", 2007; here without the regularization, for three bands.
"""

from dataclasses import dataclass

import numpy as np
import torch

from baselines.dates import Scored, otsu_threshold, read_bands, sample_bands
from img_io import Image
from utils import EventError, Window

ITERATIONS = 30  # at most
FITTED = 1 << 18  # pixels, at most, in an iteration: every k-th one of the sample
BANDS = 3
TOLERANCE = 1e-4  # largest change of a canonical correlation at the end
LEAST_VARIANCE = 1e-9  # of a direction of a date's bands, as a share of the largest; others hold nothing


@dataclass(frozen=True)
class Variates:
    """The linear maps from both dates' bands to D pairs of canonical variates; they are 1 to 3."""

    means: tuple[np.ndarray, np.ndarray]  # (3,) each
    maps: tuple[np.ndarray, np.ndarray]  # (3, D) each; the variates have variance 1
    correlations: np.ndarray  # (D,) of the pairs, descending, 0 to 1

    @classmethod
    def fit(cls, before: np.ndarray, after: np.ndarray, weights: np.ndarray) -> "Variates":
        """Compute the canonical correlations of weighted pixels, (n, 3) and (n, 3)."""
        total = weights.sum()
        means = (weights @ before / total, weights @ after / total)
        centred = [bands - mean for bands, mean in zip((before, after), means, strict=True)]
        whitening = [_whitening((weights[:, None] * bands).T @ bands / total) for bands in centred]
        crossed = (weights[:, None] * centred[0]).T @ centred[1] / total
        left, correlations, right = np.linalg.svd(whitening[0].T @ crossed @ whitening[1], full_matrices=False)
        return cls(means, (whitening[0] @ left, whitening[1] @ right.T), np.clip(correlations, 0, 1))

    def distances(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Return the squared differences of the variates, each by its variance, summed: (..., 3) each to (...)."""
        first, second = (
            (bands - mean) @ to for bands, mean, to in zip((before, after), self.means, self.maps, strict=True)
        )
        variances = np.maximum(2 * (1 - self.correlations), np.finfo(np.float32).eps)
        return ((first - second) ** 2 / variances).sum(axis=-1)


def _whitening(covariance: np.ndarray) -> np.ndarray:
    """Return the map, (3, D), to D directions of variance 1 without covariance."""
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > max(LEAST_VARIANCE * variances.max(), 0)
    return directions[:, kept] / np.sqrt(variances[kept])


def fit_no_change(before: np.ndarray, after: np.ndarray) -> Variates:
    """Fit the variates to the pixels that did not change: each counts with its probability of no change.

    `before`, `after`: (n, 3) float64. Fewer than three variates, as of grey images, are not iterated: each iteration
    would weigh fewer pixels than the one before, without end.
    """
    variates = Variates.fit(before, after, np.ones(len(before)))
    for _ in range(ITERATIONS):
        distances = torch.from_numpy(variates.distances(before, after))
        weights = torch.special.gammaincc(torch.tensor(BANDS / 2, dtype=torch.float64), distances / 2).numpy()
        if len(variates.correlations) < BANDS or weights.sum() < 1:  # below 1: everything changed
            break
        last, variates = variates, Variates.fit(before, after, weights)
        if len(variates.correlations) < BANDS:
            return last
        if np.abs(variates.correlations - last.correlations).max() < TOLERANCE:
            break
    return variates


@dataclass(frozen=True)
class VariateDistances:
    """The distance of each pixel's canonical variates."""

    reference: Image
    monitor: Image
    variates: Variates

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.monitor.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the distances of a window, (h, w) float32; NaN where a date lacks data."""
        bands = (read_bands(image, window).astype(np.float64) for image in (self.reference, self.monitor))
        return np.sqrt(self.variates.distances(*bands)).astype(np.float32)


def ir_mad(reference: Image, monitor: Image) -> Scored:
    """Return the distances, with Otsu's threshold.

    Their distribution where nothing changes gives no threshold: after the iteration, the distances are those among the
    pixels with weight, which are closer than others. Raises EventError if no pixel can be compared, or if a date is
    constant.
    """
    before, after = sample_bands([reference, monitor])
    step = -(-len(before) // FITTED)
    variates = fit_no_change(before[::step], after[::step])
    if not len(variates.correlations):
        raise EventError(f"{reference.path} and {monitor.path}: one of them has the same colour everywhere")
    distances = VariateDistances(reference, monitor, variates)
    return Scored(distances, otsu_threshold(distances))
