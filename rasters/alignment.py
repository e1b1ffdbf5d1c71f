"""Estimates the shift between two images of the same place."""

from collections.abc import Iterable

import cv2
import numpy as np
from skimage.registration import phase_cross_correlation

UPSAMPLING = 20  # shifts are found to 1/20 pixel
AGREEMENT = 1.0  # largest distance of a window's shift from the median, in pixels


def estimate_shift(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float] | None:
    """Estimate by how many pixels the second image of each pair lies to the right of and below the first.

    Uses phase correlation (Kuglin and Hines, 1975; Guizar-Sicairos et al., 2008, for fractions of a pixel) of every
    pair, and the mean of the shifts near their median, so that changes in some windows are ignored.
    `pairs`: (h, w, 3) uint8 each. Returns (dx, dy), or None if fewer than half of the pairs agree or there are none.
    """
    shifts = np.array([_shift_of_pair(*pair) for pair in pairs])
    if not len(shifts):
        return None
    median = np.median(shifts, axis=0)
    agreeing = np.hypot(*(shifts - median).T) <= AGREEMENT
    if 2 * np.count_nonzero(agreeing) < len(shifts):
        return None
    dx, dy = shifts[agreeing].mean(axis=0)
    return float(dx), float(dy)


def _shift_of_pair(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    height, width = first.shape[:2]
    # Fade out towards the edges, because the Fourier transform treats the image as periodic.
    fade = np.outer(np.hanning(height), np.hanning(width))
    faded = []
    for image in (first, second):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
        faded.append((grey - grey.mean()) * fade)
    (dy, dx), *_ = phase_cross_correlation(*faded, upsample_factor=UPSAMPLING)
    return -float(dx), -float(dy)
