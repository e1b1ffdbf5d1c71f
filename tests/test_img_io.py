import os
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from gdal_files import Georeference
from img_io import open_event, open_image, open_label, read_window
from map_io import write_raster
from tests.helpers import whole
from tests.tiffs import NOWHERE, TRANSFORM, crs, refusal, write_tiff
from utils import Window

RNG = np.random.default_rng(0)
RGB = RNG.integers(1, 256, (40, 30, 3), dtype=np.uint8)  # without 0: room for a nodata value


def placed(path: Path, code: int = 32632, shift: float = 0.0, values: np.ndarray = RGB) -> Path:
    """An image that lies `shift` pixels further east."""
    x, *others = TRANSFORM
    write_raster(path, values, Georeference(crs(code), (x + shift * others[0], *others)))
    return path


# --- Read ------------------------------------------------------------------------------------------------------------
def test_an_image_comes_back_with_its_place(tmp_path: Path) -> None:
    image = open_image(placed(tmp_path / "image.tif"))
    assert image.shape == (40, 30)
    np.testing.assert_array_equal(read_window(image, Window(0, 0, 30, 40)), RGB)
    spatial_reference, transform = image.georeference[:2]
    assert spatial_reference is not None
    assert spatial_reference.IsSame(crs(32632))
    assert transform == TRANSFORM


def test_an_image_without_a_place_has_none(tmp_path: Path) -> None:
    write_raster(tmp_path / "image.tif", RGB, NOWHERE)
    assert open_image(tmp_path / "image.tif").georeference == NOWHERE


def test_a_window_is_the_rows_and_columns_it_names(tmp_path: Path) -> None:
    window = Window(x=4, y=10, width=7, height=20)
    pixels = read_window(open_image(write_tiff(tmp_path / "image.tif", RGB)), window)
    np.testing.assert_array_equal(pixels, RGB[10:30, 4:11])
    assert pixels.flags.c_contiguous


def test_an_image_of_several_bands_of_rows_comes_back(tmp_path: Path) -> None:
    image = np.tile(RGB, (8, 700, 1))
    write_raster(tmp_path / "image.tif", image, NOWHERE)
    np.testing.assert_array_equal(read_window(open_image(tmp_path / "image.tif"), Window(0, 0, 21_000, 320)), image)


# --- Images that are refused -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "described"),
    [
        (RGB.astype(np.uint16), "3 band(s) of UInt16"),
        (RGB.astype(np.float32), "3 band(s) of Float32"),
        (RGB[..., :1], "1 band(s) of Byte"),
        (RGB[..., :2], "2 band(s) of Byte"),
        (np.dstack([RGB, RGB[..., :1]]), "4 band(s) of Byte"),
    ],
)
def test_only_three_bands_of_bytes_are_read(tmp_path: Path, values: np.ndarray, described: str) -> None:
    message = refusal(write_tiff(tmp_path / "image.tif", values), open_image)
    assert described in message
    assert "docs/data.md" in message


def test_a_palette_is_refused(tmp_path: Path) -> None:
    def add_palette(dataset: gdal.Dataset) -> None:
        colors = gdal.ColorTable()
        colors.SetColorEntry(1, (255, 0, 0))
        dataset.GetRasterBand(1).SetColorTable(colors)

    assert "1 band(s)" in refusal(write_tiff(tmp_path / "image.tif", RGB[..., 0], change=add_palette), open_image)


def test_a_vrt_in_disguise_is_not_followed(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "source.tif", RGB)
    disguised = tmp_path / "image.tif"
    gdal.GetDriverByName("VRT").CreateCopy(str(disguised), gdal.Open(str(source)))
    assert disguised.read_bytes().startswith(b"<VRTDataset")
    assert "cannot be opened as a GeoTIFF" in refusal(disguised, open_image)


@pytest.mark.parametrize("content", [b"", b"Hello, this is no image.\n", b"II*\0"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(content)
    assert "cannot be opened as a GeoTIFF" in refusal(path, open_image)


@pytest.mark.parametrize("options", [(), ("COMPRESS=DEFLATE",), ("TILED=YES",)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_image_is_refused(tmp_path: Path, options: tuple[str, ...], share: float) -> None:
    path = write_tiff(tmp_path / "image.tif", RNG.integers(0, 256, (300, 300, 3), dtype=np.uint8), *options)
    os.truncate(path, int(path.stat().st_size * share))
    refusal(path, lambda path: read_window(open_image(path), Window(0, 0, 300, 300)))


def test_nodata_pixels_are_refused(tmp_path: Path) -> None:
    values = RGB.copy()
    values[-1, -1] = 0
    assert "nodata" in refusal(write_tiff(tmp_path / "image.tif", values, nodata=0), open_image)


def test_masked_pixels_are_refused(tmp_path: Path) -> None:
    def mask_corner(dataset: gdal.Dataset) -> None:
        dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
        valid = np.full(RGB.shape[:2], 255, np.uint8)
        valid[0, 0] = 0
        dataset.GetRasterBand(1).GetMaskBand().WriteArray(valid)

    assert "nodata" in refusal(write_tiff(tmp_path / "image.tif", RGB, change=mask_corner), open_image)


@pytest.mark.parametrize("zero_bands", [[], [0], [0, 2]])
def test_a_nodata_value_that_no_pixel_has_is_accepted(tmp_path: Path, zero_bands: list[int]) -> None:
    values = RGB.copy()
    values[0, 0, zero_bands] = 0  # a dark pixel is not an empty one
    assert open_image(write_tiff(tmp_path / "image.tif", values, nodata=0)).shape == (40, 30)


# --- Images of one event ---------------------------------------------------------------------------------------------
def event_refusal(first: Path, other: Path) -> str:
    """The line that two images are refused with, which names both."""
    message = refusal(first, lambda path: open_event([path, other]))
    assert str(other) in message
    return message


def test_a_transform_that_maps_the_image_to_a_line(tmp_path: Path) -> None:
    flat = tmp_path / "flat.tif"
    write_raster(flat, RGB, Georeference(None, (0.0, 1.0, 1.0, 0.0, 1.0, 1.0)))
    assert "maps the image to a line" in refusal(flat, lambda path: open_event([path, flat]))


def test_sizes_that_differ(tmp_path: Path) -> None:
    message = event_refusal(placed(tmp_path / "a.tif"), placed(tmp_path / "b.tif", values=RGB[:20]))
    assert "sizes differ, 30 x 40 and 30 x 20" in message


def test_crss_that_differ(tmp_path: Path) -> None:
    message = event_refusal(placed(tmp_path / "a.tif"), placed(tmp_path / "b.tif", code=32633))
    assert "WGS 84 / UTM zone 32N and WGS 84 / UTM zone 33N" in message


@pytest.mark.parametrize("shift", [0.6, -2.0])
def test_grids_that_are_shifted(tmp_path: Path, shift: float) -> None:
    message = event_refusal(placed(tmp_path / "a.tif"), placed(tmp_path / "b.tif", shift=shift))
    assert f"{abs(shift):.1f} pixels apart" in message


def test_grids_of_another_resolution(tmp_path: Path) -> None:
    x, step, *others = TRANSFORM
    write_raster(tmp_path / "b.tif", RGB, Georeference(crs(32632), (x, step * 1.1, *others)))
    assert "3.0 pixels apart" in event_refusal(placed(tmp_path / "a.tif"), tmp_path / "b.tif")


def test_grids_that_nearly_agree_are_accepted_in_their_order(tmp_path: Path) -> None:
    paths = [placed(tmp_path / "b.tif"), placed(tmp_path / "a.tif", shift=0.4)]
    assert [image.path for image in open_event(paths)] == paths


def test_an_image_without_a_place_joins_any_other(tmp_path: Path) -> None:
    write_raster(tmp_path / "b.tif", RGB, NOWHERE)
    assert len(open_event([placed(tmp_path / "a.tif"), tmp_path / "b.tif"])) == 2


# --- Labels -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32])
def test_labels_are_integers_of_any_size(tmp_path: Path, kind: type[np.integer]) -> None:
    label = RGB[..., 0].astype(kind)
    read = whole(open_label(write_tiff(tmp_path / "label.tif", label)))
    np.testing.assert_array_equal(read, label)
    assert read.dtype == kind


@pytest.mark.parametrize(
    ("values", "described"), [(RGB[..., 0] / np.float32(255), "1 band(s) of float32"), (RGB, "3 band(s) of uint8")]
)
def test_other_labels_are_refused(tmp_path: Path, values: np.ndarray, described: str) -> None:
    assert described in refusal(write_tiff(tmp_path / "label.tif", values), open_label)
