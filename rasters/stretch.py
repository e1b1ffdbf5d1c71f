"""Scales images of more than 8 bits to 8 bits, with one stretch for all dates of an event (docs/data.md)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import config


class Stretch(NamedTuple):
    """A linear map of pixel values to the range 0 to 255: values up to `low` become 0, those from `high` become 255."""

    low: float
    high: float

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        """Scale values and round them to the nearest integer: uint8 of the same shape. NaN becomes 0."""
        span = self.high - self.low
        scaled = (values.astype(np.float64) - self.low) * (255 / span if span > 0 else 0)
        return np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)


def find_stretch(samples: Sequence[np.ndarray], mode: str) -> Stretch:
    """Compute the stretch of an event.

    Parameters
    ----------
    samples
        Valid pixel values of every date, finite, of any shape and type; one stretch for all bands keeps the colours.
    mode
        One of config.STRETCH_MODES. `auto`: from the 2nd to the 98th percentile of all samples together; `minmax`: from
        the least to the greatest of them; `none`: values stay unchanged, except that those above 255 become 255.

    Returns
    -------
    The stretch; 0 to 255 if there are no samples.

    """
    values = np.concatenate([np.ravel(sample) for sample in samples])
    if mode == "none" or not values.size:
        return Stretch(0.0, 255.0)
    if mode == "minmax":
        return Stretch(float(values.min()), float(values.max()))
    low, high = np.quantile(values.astype(np.float64), [config.STRETCH_LOW_QUANTILE, config.STRETCH_HIGH_QUANTILE])
    return Stretch(float(low), float(high))
