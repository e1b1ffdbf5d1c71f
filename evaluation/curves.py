"""Computes the data of the evaluation's plots: precision-recall curves and score histograms."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eval_metrics import Scores, average_scores
from evaluation.event_maps import EventMaps
from rasters.raster import strips
from rasters.resize import value_range

BIN_EDGES = np.linspace(0, 1, 51)  # of the score histograms; scores outside count in the first or the last bin


class ScoreHistogram(NamedTuple):
    """The number of pixels with a score in each bin of BIN_EDGES."""

    inside: np.ndarray  # (bins,) int64: pixels that the label marks as anomaly
    outside: np.ndarray  # (bins,) int64: all other pixels


class EventCurves(NamedTuple):
    """The data plotted for one event."""

    precision_recall: list[Scores]  # at each threshold
    histogram: ScoreHistogram


def event_curves(maps: EventMaps) -> EventCurves:
    """Compute the data plotted for an event, which must have a label; reads its rasters in strips."""
    assert maps.label is not None
    return EventCurves(maps.curve.scores(maps.settings.background_weight), score_histogram(maps))


def score_histogram(maps: EventMaps) -> ScoreHistogram:
    """Count the scores of the anomaly map inside and outside the label; pixels without data do not count.

    With `normalize_anomaly_map`, the scores are min-max scaled first, as they are for the threshold.
    """
    assert maps.label is not None
    low, high = value_range(maps.anomalies) if maps.settings.normalize_anomaly_map else (0, 1)
    span = high - low if high > low else 1
    counts = np.zeros((2, len(BIN_EDGES) - 1), np.int64)
    for window in strips(maps.anomalies.shape):
        scores = (maps.anomalies.read(window) - low) / span
        valid = ~np.isnan(scores)
        anomaly = maps.label.read(window) > 1
        for count, chosen in zip(counts, (anomaly & valid, ~anomaly & valid), strict=True):
            count += np.histogram(np.clip(scores[chosen], 0, 1), BIN_EDGES)[0]
    return ScoreHistogram(counts[0], counts[1])


def average_curve(curves: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Average the curves of events at each threshold: mean recall, mean precision, and the F1 of these two means."""
    return [average_scores(list(at_threshold)) for at_threshold in zip(*curves, strict=True)]


def found_points(curve: Sequence[Scores]) -> np.ndarray:
    """Return recall and precision, (n, 2), of the points of a curve at which an anomalous pixel is found.

    At all other points both are 0, by convention for an empty denominator; they are left out.
    """
    return np.array([(point.recall, point.precision) for point in curve if point.recall > 0]).reshape(-1, 2)


def mean_shares(counts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the share of pixels in each bin, (bins,), averaged over events with equal weights.

    Events without any pixel are left out; returns None if no event has a pixel.
    """
    shares = [count / count.sum() for count in counts if count.any()]
    return np.mean(shares, axis=0) if shares else None
