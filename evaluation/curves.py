"""What the evaluation's plots show, as numbers: precision-recall curves and score histograms (no drawing here)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eval_metrics import Scores, average_scores, threshold_curve
from evaluation.event_maps import EventMaps
from rasters.raster import strips
from rasters.resize import value_range

# Denser where most scores are, and where the published threshold lies.
CURVE_THRESHOLDS = tuple(np.concatenate([np.arange(50) * 0.004, 0.2 + np.arange(51) * 0.016]).round(3).tolist())
BIN_EDGES = np.linspace(0, 1, 51)  # of the score histograms; scores beyond count in the first and the last bin


class ScoreHistogram(NamedTuple):
    """How many pixels have a score in each bin of BIN_EDGES."""

    inside: np.ndarray  # (bins,) int64: where the label says anomaly
    outside: np.ndarray  # (bins,) int64: everywhere else


class EventCurves(NamedTuple):
    """What is plotted of one event."""

    precision_recall: list[Scores]  # at each threshold
    histogram: ScoreHistogram


def curve_thresholds(stage2_threshold: float) -> list[float]:
    """The thresholds of the precision-recall curves, rising: CURVE_THRESHOLDS and the one of the evaluation."""
    return sorted({*CURVE_THRESHOLDS, stage2_threshold})


def event_curves(maps: EventMaps, thresholds: Sequence[float]) -> EventCurves:
    """Compute what is plotted of an event, which has a label; reads its rasters in strips."""
    assert maps.label is not None
    settings = maps.settings
    curve = threshold_curve(
        maps.anomalies, maps.label, thresholds, **settings.cleaning, normalize=settings.normalize_anomaly_map
    )
    return EventCurves(curve.scores(settings.background_weight), score_histogram(maps))


def score_histogram(maps: EventMaps) -> ScoreHistogram:
    """Count the scores of the anomaly map inside and outside the label; pixels without data do not count.

    With `normalize_anomaly_map` the scores are those after min-max scaling, which the threshold applies to.
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
    """The average of events at each threshold: mean recall, mean precision, and the F1 of these two means."""
    return [average_scores(list(at_threshold)) for at_threshold in zip(*curves, strict=True)]


def found_points(curve: Sequence[Scores]) -> np.ndarray:
    """Recall and precision, (n, 2), of those points of a curve at which an anomalous pixel is found.

    Where none is, both are 0, which is the convention of an empty denominator and no part of the curve's course.
    """
    return np.array([(point.recall, point.precision) for point in curve if point.recall > 0]).reshape(-1, 2)


def mean_shares(counts: Sequence[np.ndarray]) -> np.ndarray | None:
    """The share of pixels in each bin, (bins,), as the mean over events: every event counts alike, however large.

    Events without any pixel are left out; None where all are.
    """
    shares = [count / count.sum() for count in counts if count.any()]
    return np.mean(shares, axis=0) if shares else None
