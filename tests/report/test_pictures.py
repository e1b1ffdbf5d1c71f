"""Images scaled down for pages and figures."""

from pathlib import Path

import numpy as np
import pytest

from img_io import Image, Pixels
from rasters import raster as raster_store
from rasters.image_file import ImageFile
from report import pictures
from report.pictures import fitted_shape, paint_gaps, shrink_image
from tests.tiffs import write_tiff


def test_fit_keeps_the_aspect_ratio_and_never_enlarges() -> None:
    assert fitted_shape((1000, 500), 100) == (100, 50)
    assert fitted_shape((50, 80), 100) == (50, 80)
    assert fitted_shape((100_000, 10), 100) == (100, 1)


def image(path: Path, values: np.ndarray, nodata: float | None = None) -> Image:
    file = ImageFile(write_tiff(path, values, nodata=nodata))
    return Image(file, file.shape, None)


def test_shrunk_pixels_are_means_of_the_pixels_with_data(tmp_path: Path) -> None:
    values = np.zeros((64, 64, 3), np.uint8)
    values[:32, :32] = 100
    values[:16, :32] = 50  # mean of the first quarter: 75
    values[32:, 32:] = 200
    values[40:, 32:] = 0  # no data: excluded from the mean
    pixels = shrink_image(image(tmp_path / "a.tif", values, nodata=0), (2, 2))
    np.testing.assert_array_equal(pixels.rgb[..., 0], [[75, 0], [0, 200]])
    assert pixels.valid is not None
    np.testing.assert_array_equal(pixels.valid, [[True, False], [False, True]])
    assert pixels.coverage == (32 * 32 + 8 * 32) / 64**2


@pytest.mark.parametrize("side", [7, 64, 100, 300])
def test_shrunk_image_does_not_depend_on_the_strip_height(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (211, 150, 3), dtype=np.uint8)
    opened = image(tmp_path / "a.tif", values)
    at_once = shrink_image(opened, fitted_shape(opened.shape, side)).rgb
    monkeypatch.setattr(pictures, "STRIP_ROWS", 1)
    np.testing.assert_array_equal(shrink_image(opened, fitted_shape(opened.shape, side)).rgb, at_once)
    if side >= 211:
        np.testing.assert_array_equal(at_once, values)


def test_large_images_are_read_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = image(tmp_path / "a.tif", np.zeros((2000, 70, 3), np.uint8))
    heights, read = [], pictures.read_window

    def recording_read(one: Image, window: pictures.Window) -> Pixels:
        heights.append(window.height)
        return read(one, window)

    monkeypatch.setattr(pictures, "read_window", recording_read)
    shrink_image(opened, (100, 4))
    assert sum(heights) == 2000
    assert max(heights) <= raster_store.STRIP_ROWS + 20  # and one more output row


def test_photos_average_pixels_with_data_and_are_grey_elsewhere(tmp_path: Path) -> None:
    rgb = np.random.default_rng(2).integers(1, 256, (700, 300, 3)).astype(np.uint8)
    valid = np.ones((700, 300), bool)
    valid[:100, :50] = False
    valid[100:110, 0] = False
    rgb[~valid] = 0
    opened = image(tmp_path / "a.tif", rgb, nodata=0)
    photo = paint_gaps(shrink_image(opened, (70, 30)))
    assert (photo[:10, :5] == 128).all()
    assert photo[30, 12] == pytest.approx(rgb[300:310, 120:130].mean((0, 1)), abs=0.51)
    assert photo[10, 0] == pytest.approx(rgb[100:110, 1:10].mean((0, 1)), abs=0.51)
    assert (paint_gaps(shrink_image(opened, (700, 300)))[valid] == rgb[valid]).all()
