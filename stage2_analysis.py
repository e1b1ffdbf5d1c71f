"""Stage 2: the anomaly map of one window (docs/method.md, section 4; AnomalyCD, ISPRS 2026)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam.features import WindowFeatures, region_means
from sam.run_lengths import RunLengths

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ChangedRegions:
    """The N regions of a window of the filtered change map, sorted by their value."""

    values: np.ndarray  # (N,) float32, the change score of each region
    areas: np.ndarray  # (N,) float64, pixels
    filtered: np.ndarray  # (H, W) float32, NaN where there is no data
    runs: RunLengths  # of `filtered`, with 0 instead of NaN

    @classmethod
    def of(cls, filtered: np.ndarray, min_region_pixels: int, max_region_fraction: float) -> "ChangedRegions":
        """Find the regions: the sets of pixels with the same non-zero value.

        `filtered`: (H, W) float32; pixels with NaN are excluded from the regions and from the window's size. Regions
        with fewer pixels, or covering more than this share of the window, are dropped.
        """
        invalid = np.isnan(filtered)
        runs = RunLengths.of(np.where(invalid, np.float32(0), filtered))
        values, value_of_run = np.unique(runs.value, return_inverse=True)
        areas = np.bincount(value_of_run, weights=runs.length)
        largest = max_region_fraction * np.count_nonzero(~invalid)
        kept = (values != 0) & (areas >= min_region_pixels) & (areas <= largest)
        return cls(values[kept], areas[kept], filtered, runs)

    @property
    def has_data(self) -> np.ndarray:
        """Where the reference and the monitor image hold data, (H, W) bool."""
        return ~np.isnan(self.filtered)

    def count_pixels(self, features: WindowFeatures, valid: np.ndarray | None = None) -> "Tensor":
        """Count the pixels of each region in each feature cell, (N, cells) float64; only `valid` ones, (H, W) bool."""
        runs = self.runs if valid is None else RunLengths.of(np.where(valid & self.has_data, self.filtered, 0))
        region, in_region = runs.find(self.values)
        return features.run_counts(runs.at(in_region), region[in_region], len(self.values))

    def paint(self, scores: np.ndarray) -> np.ndarray:
        """Paint a score over each region, (N,) to (H, W) float32; 0 outside the regions, NaN where there is no data."""
        region, in_region = self.runs.find(self.values)
        of_runs = np.zeros(len(region), np.float32)
        of_runs[in_region] = scores[region[in_region]]
        painted = self.runs.paint(of_runs)
        painted[~self.has_data] = np.nan
        return painted


class Similarities(NamedTuple):
    """The comparison of N regions in D historical images; NaN where there is none."""

    with_monitor: np.ndarray  # (N, D) float64, cosine of each historical image with the monitor image, -1 to 1
    between_dates: np.ndarray  # (N, D, D) float64, cosine of two historical images; NaN on the diagonal

    @property
    def scores(self) -> np.ndarray:
        """The anomaly scores, (N,) float32 in [0, 2]: `1 - max over dates`, not clipped."""
        return (1 - np.fmax.reduce(self.with_monitor, axis=1)).astype(np.float32)

    @property
    def usual_scores(self) -> np.ndarray:
        """The highest score that a historical image would have against the others, (N,) float64; NaN if none has."""
        return np.fmax.reduce(1 - np.fmax.reduce(self.between_dates, axis=2), axis=1)


def compare_dates(
    regions: ChangedRegions,
    historical: Sequence[WindowFeatures],
    monitor: WindowFeatures,
    historical_valid: Sequence[np.ndarray | None] | None = None,
    min_date_coverage: float = 0.5,
    between_dates: bool = False,
    tolerance: int = 0,
) -> Similarities:
    """Compare the regions of a window in the monitor image with every historical image.

    Parameters
    ----------
    regions
        At least one. At least one historical image (the reference image) holds data on all of their pixels.
    historical, monitor
        Encoder features of the historical images and of the monitor image of the same window.
    historical_valid
        For each historical image (H, W) bool, where it holds data, or None: everywhere. Default: everywhere.
    min_date_coverage
        A historical image takes part in a region's comparison if it holds data on at least this share of the region's
        pixels, and on at least one. Both features are then averaged over these pixels. Two historical images are
        compared on the pixels on which both hold data, by the same rule.
    between_dates
        Whether to compare the historical images with each other, too.
    tolerance
        A region is compared with its best match within so many feature cells in the earlier image of a pair.

    """
    dates, last = len(historical), len(historical)  # the monitor image follows the historical ones
    images = [*historical, monitor]
    partial = _partial_dates(historical_valid or [None] * dates, regions.has_data)
    # Pairs of images by the dates that limit their pixels: a pair's features are averaged over the same pixels.
    pairs = [(date, last) for date in range(dates)]
    pairs += itertools.combinations(range(dates), 2) if between_dates else []
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for pair in pairs:
        groups.setdefault(tuple(image for image in pair if image in partial), []).append(pair)
    found = np.full((len(regions.values), dates + 1, dates + 1), np.nan)
    for limiting, group in groups.items():
        valid = np.logical_and.reduce([partial[date] for date in limiting]) if limiting else None
        counts = regions.count_pixels(monitor, valid)
        covered = _covered(counts, regions.areas, min_date_coverage)
        if not len(covered):
            continue
        members = sorted({image for pair in group for image in pair})
        counts = counts[covered]
        means = region_means(counts, [images[image] for image in members])
        moves = zip(*(images[image].moved(tolerance) for image in members), strict=True)
        for moved_means in (means, *(region_means(counts, moved) for moved in moves)):
            for one, other in group:
                cosines = cosine_similarity(moved_means[members.index(one)], means[members.index(other)])
                best = np.fmax(found[covered, one, other], cosines)
                found[covered, one, other] = found[covered, other, one] = best
    return Similarities(found[:, :dates, last], found[:, :dates, :dates])


def _partial_dates(historical_valid: Sequence[np.ndarray | None], has_data: np.ndarray) -> dict[int, np.ndarray]:
    """Return the masks of the dates that lack data on a pixel of `has_data`, by their index."""
    return {
        date: valid for date, valid in enumerate(historical_valid) if valid is not None and not valid[has_data].all()
    }


def _covered(counts: "Tensor", areas: np.ndarray, min_date_coverage: float) -> np.ndarray:
    """Return the indices of the regions with enough counted pixels."""
    pixels = counts.sum(dim=1).cpu().numpy()
    return np.flatnonzero((pixels > 0) & (pixels >= min_date_coverage * areas))


def anomaly_map(
    filtered: np.ndarray,
    historical: Sequence[WindowFeatures],
    monitor: WindowFeatures,
    min_region_pixels: int,
    max_region_fraction: float,
    historical_valid: Sequence[np.ndarray | None] | None = None,
    min_date_coverage: float = 0.5,
    tolerance: int = 0,
) -> np.ndarray:
    """Compute how much the changed regions of one window differ from every earlier date.

    The parameters are those of `ChangedRegions.of` and `compare_dates`.

    Returns
    -------
    (H, W) float32 in [0, 2]: `1 - max over dates of cos(historical, monitor)`, not clipped, so rounding can make it
    negative. 0 outside the regions, NaN where `filtered` is NaN.

    """
    regions = ChangedRegions.of(filtered, min_region_pixels, max_region_fraction)
    found = compare_dates(regions, historical, monitor, historical_valid, min_date_coverage, tolerance=tolerance)
    return regions.paint(found.scores)


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, 0 if either is all zeros: (N, C) each to (N,) float64 in [-1, 1]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("nc,nc->n", a, b)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
