"""Change vector analysis: how far a pixel moved in the space of its bands.

W. A. Malila, "Change vector analysis: an approach for detecting forest changes with Landsat", 1980. Each band of each
date is scaled to mean 0 and standard deviation 1 before, as the dates' light differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from baselines.dates import Scored, otsu_threshold, read_bands, sample_bands
from img_io import Image
from utils import Window


@dataclass(frozen=True)
class Standardized:
    """A date whose bands have mean 0 and standard deviation 1; a constant band is 0."""

    image: Image
    mean: np.ndarray  # (3,) float64
    deviation: np.ndarray  # (3,) float64, above 0

    @classmethod
    def of(cls, image: Image) -> "Standardized":
        """Compute mean and deviation of a date's pixels with data."""
        (bands,) = sample_bands([image])
        deviation = bands.std(axis=0)
        return cls(image, bands.mean(axis=0), np.where(deviation > 0, deviation, 1))

    def scale(self, bands: np.ndarray) -> np.ndarray:
        """Scale bands, (..., 3)."""
        return ((bands - self.mean) / self.deviation).astype(np.float32)


@dataclass(frozen=True)
class ShortestVectors:
    """The length of each pixel's shortest change vector from an earlier date to the monitor image."""

    earlier: Sequence[Standardized]  # those without data on a pixel are left out there
    monitor: Standardized

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.monitor.image.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the lengths of a window, (h, w) float32; NaN where nothing can be compared."""
        monitor = self.monitor.scale(read_bands(self.monitor.image, window))
        lengths = (
            np.linalg.norm(monitor - date.scale(read_bands(date.image, window)), axis=2) for date in self.earlier
        )
        return np.fmin.reduce(list(lengths))


def change_vectors(earlier: Sequence[Image], monitor: Image) -> Scored:
    """Return the lengths of the shortest change vectors, with Otsu's threshold.

    `earlier`: the reference image alone for change vector analysis, or all historical images. Raises EventError if no
    pixel can be compared.
    """
    lengths = ShortestVectors([Standardized.of(image) for image in earlier], Standardized.of(monitor))
    return Scored(lengths, otsu_threshold(lengths))
