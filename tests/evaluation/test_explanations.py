from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval_metrics import BinaryMap
from evaluation.explanations import NOT_COMPARED, ExplanationMap, RegionExplanation, explain_regions
from evaluation.regions import measure_regions
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from rasters.raster import MemoryRaster
from tests.helpers import property_test
from utils import EventError, Window

SHAPE = (4, 6)
ROWS, COLUMNS = (np.arange(length) for length in SHAPE)
SMALL = np.zeros(SHAPE, bool)
SMALL[0, :4] = SMALL[2:, 4:] = True  # two regions, of 4 pixels each
NUMBERS = SMALL * np.uint32(1)
NUMBERS[2:] *= 2


class Explanation(MemoryRaster):
    """An explanation map in memory, (H, W, dates + 1)."""

    @property
    def dates(self) -> list[str]:
        return [str(date) for date in range(self.values.shape[2] - 1)]


def explained(first: list[list[float]], second: list[float]) -> list[RegionExplanation]:
    """The explanations of two regions: these values in each pixel of the first, and in all pixels of the second."""
    values = np.zeros((*SHAPE, len(second)), np.float32)
    values[0, :4] = first
    values[2:, 4:] = second
    return explain_regions(Explanation(values), BinaryMap(SMALL, ROWS, COLUMNS), NUMBERS, [4, 4])


def test_averages_are_weighted_by_pixels() -> None:
    first, second = explained([[0.5, 0.25, 0.125]] * 3 + [[0.9, 0.25, 0.225]], [0.25, 0.75, 0.5])
    assert first.similarities == pytest.approx([0.6, 0.25])
    assert first.usual_score == pytest.approx(0.15)
    assert first.most_similar == 0
    assert second.most_similar == 1
    assert second == ((0.25, 0.75), 0.5)


def test_pixels_outside_of_stage_2s_regions_count_in_the_usual_score_as_in_the_mean_score() -> None:
    outside = [0.0, 0.0, 0.0]
    first, second = explained([[0.5, 0.25, 0.5]] * 2 + [outside] * 2, outside)
    assert first == ((0.5, 0.25), 0.25)
    assert second.most_similar is None
    assert second == ((None, None), None)


def test_what_was_not_compared_is_left_out() -> None:
    none = NOT_COMPARED
    first, second = explained([[0.5, none, none]] + [[0.5, 0.25, 0.5]] * 3, [0.75, none, none])
    assert first == ((0.5, 0.25), 0.5)
    assert second.most_similar == 0
    assert second == ((0.75, None), None)


def test_a_usual_score_of_zero_is_one() -> None:
    assert explained([[1, 1, 0]] * 4, [1, 1, 0])[0].usual_score == 0


@property_test
@given(
    arrays(bool, (8, 10)),
    arrays(np.float32, (8, 10, 3), elements=st.sampled_from([-1, 0, 0.25, 0.5, 1])),
)
def test_averages_equal_those_computed_pixel_by_pixel(mask: np.ndarray, values: np.ndarray) -> None:
    binary = BinaryMap(mask, np.arange(8), np.arange(10))
    regions, numbers = measure_regions(binary, MemoryRaster(np.ones((8, 10), np.float32)))
    found = explain_regions(Explanation(values), binary, numbers, [region.pixels for region in regions])
    for number, one in enumerate(found, 1):
        pixels = values[numbers == number]
        for date in range(2):
            compared = [value for value in pixels[:, date] if value not in (0, NOT_COMPARED)]
            assert one.similarities[date] == (pytest.approx(np.mean(compared)) if compared else None)
        has_usual = pixels[:, 2] != NOT_COMPARED
        is_region = pixels.any(axis=1)
        expected = pytest.approx(pixels[has_usual, 2].mean()) if (has_usual & is_region).any() else None
        # A pixel outside of the regions has no other band, so its usual score is 0.
        if not pixels[~is_region].any():
            assert one.usual_score == expected


def test_a_map_in_a_file_has_its_dates_in_order(tmp_path: Path) -> None:
    path = tmp_path / "explanation.tif"
    values = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    write_raster(path, values, Georeference(), descriptions=["2018-06-14", "summer", "usual score"])
    opened = ExplanationMap(path)
    assert opened.dates == ("2018-06-14", "summer")
    np.testing.assert_array_equal(opened.read(Window(2, 1, 3, 2)), values[1:3, 2:5])


def test_a_damaged_map_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "explanation.tif"
    path.write_bytes(b"II*\0broken")
    with pytest.raises(EventError, match=r"explanation\.tif"):
        ExplanationMap(path)
