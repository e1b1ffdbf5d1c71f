"""Averages an explanation map over the regions of a binary map (docs/data.md)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from eval_metrics import BinaryMap
from rasters.geotiff import GeoTiff
from rasters.maps import ScoreMap, read_parameters
from rasters.raster import Raster, strips
from utils import Event, Window, date_text

NOT_COMPARED = -1.0  # in a region: a date without enough data, or a usual score without two dates to compare


class ExplanationRaster(Raster, Protocol):
    """Interface of an explanation map: `read` returns (h, w, dates + 1) float32.

    The bands are the similarity with each historical date, -1 to 1, and the usual score, 0 to 2; NOT_COMPARED where a
    region lacks them, 0 outside of the regions.
    """

    @property
    def dates(self) -> Sequence[str]:
        """The historical dates, oldest first."""


class ExplanationMap(GeoTiff):
    """An explanation map in a file. Implements ExplanationRaster."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises EventError if it is not a GeoTIFF."""
        super().__init__(path)
        count = self.dataset.RasterCount
        self.dates = tuple(self.dataset.GetRasterBand(band).GetDescription() for band in range(1, count))

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w, dates + 1) float32."""
        return self.read_bands(range(1, len(self.dates) + 2), window)


def current_explanation(path: Path, event: Event, anomalies: ScoreMap) -> ExplanationMap | None:
    """Open an event's explanation map; None if it is missing, or was made with other parameters than its anomaly map.

    Raises EventError if it is damaged.
    """
    if not path.exists():
        return None
    explanation, dates = ExplanationMap(path), tuple(date_text(image) for image in event.historical)
    is_current = explanation.shape == anomalies.shape and explanation.dates == dates
    return explanation if is_current and read_parameters(path) == read_parameters(anomalies.path) else None


class RegionExplanation(NamedTuple):
    """The comparison of a region with the historical dates, averaged over its pixels."""

    similarities: tuple[float | None, ...]  # with each historical date; None: not compared
    usual_score: float | None  # highest score of a historical date against the others; None: fewer than two dates

    @property
    def most_similar(self) -> int | None:
        """The index of the most similar date; None if no date was compared."""
        compared = [(similarity, index) for index, similarity in enumerate(self.similarities) if similarity is not None]
        return max(compared)[1] if compared else None


def explain_regions(
    explanation: ExplanationRaster, binary: BinaryMap, numbers: np.ndarray, pixels: Sequence[int]
) -> list[RegionExplanation]:
    """Average an explanation map over the regions of a binary map.

    A similarity is averaged over the pixels that were compared with this date. The usual score is averaged over the
    same pixels as the mean score: it is 0 outside of stage 2's regions, where the anomaly score is 0, too.

    `numbers`: the map of the regions' numbers, see `measure_regions`. `pixels`: number of pixels of each region.
    """
    bands = len(explanation.dates) + 1
    sums, compared = np.zeros((2, bands, len(pixels) + 1))
    excluded = np.zeros(len(pixels) + 1)  # pixels that lack a usual score
    for strip in strips(binary.shape):
        rows, _ = strip.slices
        in_strip = numbers[np.ix_(binary.rows[rows], binary.columns)]
        columns = np.flatnonzero(in_strip.any(axis=0))
        if not len(columns):
            continue
        part = Window(int(columns[0]), strip.y, int(columns[-1] - columns[0]) + 1, strip.height)
        in_part = in_strip[:, part.x : part.x + part.width]
        flagged = in_part > 0
        number, values = in_part[flagged], explanation.read(part)[flagged]
        in_region = values.any(axis=1)
        for band, band_values in enumerate(values.T):
            is_usual_score = band == bands - 1
            used = (in_region if is_usual_score else band_values != 0) & (band_values != NOT_COMPARED)
            sums[band] += np.bincount(number[used], band_values[used], minlength=len(pixels) + 1)
            compared[band] += np.bincount(number[used], minlength=len(pixels) + 1)
        excluded += np.bincount(number[values[:, -1] == NOT_COMPARED], minlength=len(pixels) + 1)
    explanations = []
    for number, count in enumerate(pixels, 1):
        similarities = tuple(
            float(total / times) if times else None
            for total, times in zip(sums[:-1, number], compared[:-1, number], strict=True)
        )
        usual = float(sums[-1, number] / (count - excluded[number])) if compared[-1, number] else None
        explanations.append(RegionExplanation(similarities, usual))
    return explanations
