"""Rasters and images at the size of a panel."""

from pathlib import Path

import numpy as np
import pytest

from img_io import Image
from rasters import raster as raster_store
from rasters.image_file import ImageFile
from rasters.raster import MemoryRaster
from report import thumbnails
from report.thumbnails import panel_shape, shrink_image, shrink_raster
from tests.tiffs import write_tiff


def test_panels_keep_the_proportions_and_enlarge_nothing() -> None:
    assert panel_shape((1000, 500), 100) == (100, 50)
    assert panel_shape((50, 80), 100) == (50, 80)
    assert panel_shape((100_000, 10), 100) == (100, 1)


def test_maps_take_the_nearest_pixel() -> None:
    values = np.arange(36, dtype=np.float32).reshape(6, 6)
    np.testing.assert_array_equal(shrink_raster(MemoryRaster(values), 2), values[1::3, 1::3])


def image(path: Path, values: np.ndarray, nodata: float | None = None) -> Image:
    file = ImageFile(write_tiff(path, values, nodata=nodata))
    return Image(file, file.shape, None)


def test_images_take_the_mean_of_the_pixels_with_data(tmp_path: Path) -> None:
    values = np.zeros((64, 64, 3), np.uint8)
    values[:32, :32] = 100
    values[:16, :32] = 50  # mean of the first quarter: 75
    values[32:, 32:] = 200
    values[40:, 32:] = 0  # no data: they do not darken the mean
    pixels = shrink_image(image(tmp_path / "a.tif", values, nodata=0), 2)
    np.testing.assert_array_equal(pixels.rgb[..., 0], [[75, 0], [0, 200]])
    assert pixels.valid is not None
    np.testing.assert_array_equal(pixels.valid, [[True, False], [False, True]])


@pytest.mark.parametrize("side", [7, 64, 100, 300])
def test_images_are_the_same_however_few_rows_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (211, 150, 3), dtype=np.uint8)
    opened = image(tmp_path / "a.tif", values)
    at_once = shrink_image(opened, side).rgb
    monkeypatch.setattr(thumbnails, "STRIP_ROWS", 1)
    np.testing.assert_array_equal(shrink_image(opened, side).rgb, at_once)
    if side >= 211:
        np.testing.assert_array_equal(at_once, values)


def test_large_images_are_read_by_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = image(tmp_path / "a.tif", np.zeros((2000, 70, 3), np.uint8))
    heights, read = [], thumbnails.read_window

    def noting(one: Image, window: thumbnails.Window) -> thumbnails.Pixels:
        heights.append(window.height)
        return read(one, window)

    monkeypatch.setattr(thumbnails, "read_window", noting)
    shrink_image(opened, 100)
    assert sum(heights) == 2000
    assert max(heights) <= raster_store.STRIP_ROWS + 20  # and a new row's
