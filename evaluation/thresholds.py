"""Suggests thresholds for stage 2's binary map, from labelled events and from normal controls."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eval_metrics import Scores
from evaluation.curves import EventCurves, average_curve
from evaluation.event_maps import EventMaps

PLATEAU_DROP = 0.01  # of F1: thresholds whose F1 is no more below the best one are as good
FEW_EVENTS = 5  # fewer labelled events are no basis for a threshold
CONTROL_SHARE = 0.001  # of the pixels of normal controls: at most this share is flagged at the suggested threshold


class ControlCurve(NamedTuple):
    """The pixels of a normal control that stage 2 flags; all of them are false positives."""

    flagged: list[int]  # pixels with data that are set at each threshold
    valid: int  # pixels with data


def control_curve(maps: EventMaps) -> ControlCurve:
    """Count the flagged pixels of a normal control at `curve_thresholds`; reads its anomaly map in strips."""
    return ControlCurve(maps.curve.flagged, int(maps.curve.counts.valid.sum()))


class Plateau(NamedTuple):
    """The thresholds around the best one whose F1 of the events' averages is at most PLATEAU_DROP lower."""

    low: float
    high: float
    middle: float  # the tried threshold next to the middle of both
    best_f1: float


def plateau(thresholds: Sequence[float], curves: Sequence[Sequence[Scores]]) -> Plateau:
    """Return the plateau around the threshold with the highest F1 of the events' averages.

    `thresholds`: ascending. `curves`: the scores of each event at each threshold; at least one event.
    """
    f1 = [scores.f1 for scores in average_curve(curves)]
    best = first = last = int(np.argmax(f1))
    while first > 0 and f1[first - 1] >= f1[best] - PLATEAU_DROP:
        first -= 1
    while last + 1 < len(f1) and f1[last + 1] >= f1[best] - PLATEAU_DROP:
        last += 1
    low, high = thresholds[first], thresholds[last]
    middle = min(thresholds[first : last + 1], key=lambda threshold: abs(threshold - (low + high) / 2))
    return Plateau(low, high, middle, f1[best])


def quiet_threshold(thresholds: Sequence[float], controls: Sequence[ControlCurve]) -> tuple[float, float] | None:
    """Return the lowest threshold at which at most CONTROL_SHARE is flagged, and the share flagged there.

    The share is that of the pixels with data of all controls together. Returns None if every threshold flags more.
    `thresholds`: ascending. `controls`: with at least one pixel.
    """
    flagged = np.sum([control.flagged for control in controls], axis=0)
    shares = flagged / sum(control.valid for control in controls)
    low = np.flatnonzero(shares <= CONTROL_SHARE)
    return (thresholds[low[0]], float(shares[low[0]])) if len(low) else None


def print_suggestions(
    thresholds: Sequence[float], curves: Sequence[EventCurves], controls: Sequence[ControlCurve]
) -> None:
    """Print the threshold that labelled events suggest, then the one that normal controls suggest, one line each."""
    print(f"Threshold suggested by labelled events: {_by_labels(thresholds, curves)}")
    print(f"Threshold suggested by normal controls: {_by_controls(thresholds, controls)}")


def _by_labels(thresholds: Sequence[float], curves: Sequence[EventCurves]) -> str:
    if not curves:
        return "none, no labelled event was evaluated"
    found = plateau(thresholds, [curve.precision_recall for curve in curves])
    counted = f"labelled events: {len(curves)}"
    if found.best_f1 == 0:
        return f"none, no threshold finds an anomalous pixel ({counted})"
    if len(curves) < FEW_EVENTS:
        counted += f", too few to rely on: below {FEW_EVENTS}"
    return (
        f"{found.middle:g} (middle of {found.low:g} to {found.high:g}, where F1 of the averages is within "
        f"{PLATEAU_DROP:g} of the best, {found.best_f1:.4f}; {counted})"
    )


def _by_controls(thresholds: Sequence[float], controls: Sequence[ControlCurve]) -> str:
    used = [control for control in controls if control.valid]
    if not used:
        return "none, no normal control has a usable map"
    limit = f"{100 * CONTROL_SHARE:g} %"
    counted = f"normal controls: {len(used)}; pixels: {sum(control.valid for control in used)}"
    found = quiet_threshold(thresholds, used)
    if found is None:
        return f"none, every threshold up to {thresholds[-1]:g} flags more than {limit} of the pixels ({counted})"
    threshold, share = found
    return f"{threshold:g} (lowest that flags at most {limit} of the pixels; flags {100 * share:.3g} %; {counted})"
