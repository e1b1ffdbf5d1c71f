"""Counts connected objects of binary maps and labels, and scores maps per object and unweighted.

Definitions are in docs/method.md, section 5; none of it is part of the published evaluation.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

from eval_metrics import Scores, average_scores, score_binary_map
from evaluation.event_maps import EventMaps
from rasters.raster import Raster, read_strips


class ObjectCounts(NamedTuple):
    """The 8-connected objects of a label and of a binary map; pixels without data belong to none."""

    labelled: int
    found: int  # labelled objects of which at least a share is flagged
    flagged: int
    right: int  # flagged objects of which at least this share is labelled
    square_metres: float | None  # of the pixels with data; None if the size of a pixel is unknown

    @classmethod
    def sum(cls, counts: Sequence["ObjectCounts"]) -> "ObjectCounts":
        """Return the counts of several events together; the area is unknown if that of one event is."""
        labelled, found, flagged, right, areas = zip(*counts, strict=True)
        return cls(sum(labelled), sum(found), sum(flagged), sum(right), None if None in areas else sum(areas))

    @property
    def scores(self) -> Scores:
        """Recall, precision and F1; each is 0 if its denominator is 0."""
        return Scores.from_rates(
            self.found / self.labelled if self.labelled else 0.0, self.right / self.flagged if self.flagged else 0.0
        )

    @property
    def false_alarms(self) -> int:
        """The number of flagged objects that are not right."""
        return self.flagged - self.right

    @property
    def false_alarms_per_km2(self) -> float | None:
        """False alarms per square kilometre; None if the size of a pixel is unknown or no pixel holds data."""
        return self.false_alarms * 1e6 / self.square_metres if self.square_metres else None


class ObjectScores(NamedTuple):
    """The scores of one stage that are not published."""

    objects: ObjectCounts
    unweighted: Scores  # of pixels; a false positive counts 1 in the precision
    average_precision: float | None  # of pixels, over thresholds; None for stage 1


def score_objects(maps: EventMaps, share: float) -> tuple[ObjectScores, ObjectScores]:
    """Return the scores of stage 1 and stage 2; needs a label.

    `share`: of an object, 0 to 1; from it on, the object is found, or right.
    """
    assert maps.label is not None
    curve = maps.curve.scores(background_weight=1)
    pairs = ((maps.changed, maps.filtered, None), (maps.anomalous, maps.anomalies, average_precision(curve)))
    area = maps.pixel_area
    stage1, stage2 = (
        ObjectScores(
            count_objects(predicted, scores, maps.label, share, area),
            score_binary_map(predicted, scores, maps.label, background_weight=1),
            average,
        )
        for predicted, scores, average in pairs
    )
    return stage1, stage2


def count_false_alarms(maps: EventMaps) -> ObjectCounts:
    """Count the flagged objects of a normal control in stage 2: all are false alarms."""
    return count_objects(maps.anomalous, maps.anomalies, None, 1, maps.pixel_area)


def average_precision(curve: Sequence[Scores]) -> float:
    """Return the sum over thresholds of precision times the gain in recall. `curve`: unweighted, thresholds ascending.

    >>> average_precision([Scores.from_rates(1.0, 0.25), Scores.from_rates(0.5, 1.0), Scores.from_rates(0.0, 0.0)])
    0.625
    """
    descending = [Scores(0, 0, 0), *reversed(curve)]
    return sum((point.recall - above.recall) * point.precision for above, point in pairwise(descending))


def average_object_scores(scores: Sequence[ObjectScores]) -> ObjectScores:
    """Return the scores of several events: sums of objects, averages of the rest. Needs at least one item."""
    precisions = [each.average_precision for each in scores if each.average_precision is not None]
    return ObjectScores(
        ObjectCounts.sum([each.objects for each in scores]),
        average_scores([each.unweighted for each in scores]),
        float(np.mean(precisions)) if precisions else None,
    )


def count_objects(
    predicted: Raster, scores: Raster, label: Raster | None, share: float, pixel_area: float | None
) -> ObjectCounts:
    """Count the objects of a label and of a binary map, and how many of each the other one covers.

    `predicted`, `scores`, `label`: see `score_binary_map`; without a label, no object is labelled. `share`: see
    `score_objects`. `pixel_area`: square metres.
    """
    labelled, flagged, valid_pixels = _Components(), _Components(), 0
    truths = read_strips(label) if label is not None else None
    for flagged_pixels, score in zip(read_strips(predicted), read_strips(scores), strict=True):
        valid = ~np.isnan(score)
        valid_pixels += int(np.count_nonzero(valid))
        found = flagged_pixels & valid
        anomaly = (next(truths) > 1) & valid if truths is not None else np.zeros_like(valid)
        labelled.add(anomaly, covering=found)
        flagged.add(found, covering=anomaly)
    return ObjectCounts(
        *labelled.count(share), *flagged.count(share), None if pixel_area is None else valid_pixels * pixel_area
    )


class _Components:
    """The 8-connected components of a binary map that is given strip by strip."""

    def __init__(self) -> None:
        self._pixels = [np.zeros(1, np.int64)]  # per component of each strip, numbered on over all strips; 0: none
        self._covered = [np.zeros(1, np.int64)]
        self._links: list[np.ndarray] = []  # (n, 2): components of neighbouring strips that touch
        self._last_row: np.ndarray | None = None

    def add(self, pixels: np.ndarray, covering: np.ndarray) -> None:
        """Add the next strip, (h, w) bool, and the pixels of the other map that cover it."""
        count, numbers = cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)
        self._pixels.append(np.bincount(numbers.ravel(), minlength=count)[1:])
        self._covered.append(np.bincount(numbers[covering], minlength=count)[1:])
        numbers[numbers > 0] += sum(map(len, self._pixels[:-1])) - 1
        if self._last_row is not None:
            above, below = np.pad(self._last_row, 1), numbers[0]
            for shift in range(3):
                neighbour = above[shift : shift + len(below)]
                touching = (neighbour > 0) & (below > 0)
                self._links.append(np.unique(np.stack([neighbour, below], axis=1)[touching], axis=0))
        self._last_row = numbers[-1]

    def count(self, share: float) -> tuple[int, int]:
        """Return the number of components, and of those with at least this share, and one pixel, covered."""
        pixels, covered = np.concatenate(self._pixels), np.concatenate(self._covered)
        roots = list(range(len(pixels)))

        def root(number: int) -> int:
            while roots[number] != number:
                roots[number] = number = roots[roots[number]]
            return number

        for above, below in (pair for pairs in self._links for pair in pairs.tolist()):
            roots[root(above)] = root(below)
        whole = np.array([root(number) for number in roots])
        pixels, covered = (np.bincount(whole, counts, len(whole)) for counts in (pixels, covered))
        return int(np.count_nonzero(pixels)), int(np.count_nonzero((covered > 0) & (covered >= share * pixels)))
