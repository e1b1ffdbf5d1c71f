import os
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from img_io import ImageOptions, Pixels, open_event, open_label, read_window
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from tests.helpers import whole
from tests.tiffs import NOWHERE, TRANSFORM, crs, refusal, write_png, write_tiff
from utils import Event, EventError, Window

SIDE = 80
WHOLE = Window(0, 0, SIDE, SIDE)
RNG = np.random.default_rng(0)
RGB = RNG.integers(1, 256, (SIDE, SIDE, 3), dtype=np.uint8)  # without 0: room for a nodata value
DEEP = RNG.integers(0, 10_000, (SIDE, SIDE, 3), dtype=np.uint16)
DEFAULT_OPTIONS = ImageOptions()


def placed(path: Path, values: np.ndarray = RGB, code: int = 32632, dx: float = 0.0, dy: float = 0.0) -> Path:
    """Write an image shifted by `dx` pixels to the east and `dy` to the south."""
    x, step, _, y, *_ = TRANSFORM
    write_raster(path, values, Georeference(crs(code), (x + dx * step, step, 0, y - dy * step, 0, -step)))
    return path


def event_of(*paths: Path, label: Path | None = None) -> Event:
    """An event whose last image is the monitor image."""
    return Event(paths[0].parent, paths[-1], paths[:-1], label)


def opened(path: Path, options: ImageOptions = DEFAULT_OPTIONS, window: Window = WHOLE) -> Pixels:
    """A window of an image, read as the reference image of an event."""
    return read_window(open_event(event_of(path, path), options).reference, window)


def refused(path: Path, options: ImageOptions = DEFAULT_OPTIONS) -> str:
    return refusal(path, lambda path: opened(path, options))


# --- Tags that differ between dates ----------------------------------------------------------------------------------
def with_tags(path: Path, values: np.ndarray, scale: float | None, offset: float | None) -> Path:
    """Write an image whose bands have scale and offset tags; None: none."""

    def tag(dataset: gdal.Dataset) -> None:
        for number in (1, 2, 3):
            if scale is not None:
                dataset.GetRasterBand(number).SetScale(scale)
            if offset is not None:
                dataset.GetRasterBand(number).SetOffset(offset)

    return write_tiff(path, values, change=tag)


def all_dates(*paths: Path) -> list[np.ndarray]:
    images = open_event(event_of(*paths))
    return [read_window(image, WHOLE).rgb for image in (*images.historical, images.monitor)]


@pytest.mark.parametrize(
    "older_tags", [(1e-4, 0.0), (1e-4, None), (None, None)], ids=["scale and offset", "scale", "no tags"]
)
def test_values_of_another_offset_are_converted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, older_tags: tuple[float | None, float | None]
) -> None:
    older = [
        with_tags(tmp_path / f"{name}.tif", DEEP // 2 + shift, *older_tags) for name, shift in (("a", 0), ("b", 7))
    ]
    expected = all_dates(*older, with_tags(tmp_path / "same.tif", DEEP, *older_tags))
    found = all_dates(*older, shifted := with_tags(tmp_path / "shifted.tif", DEEP + 1000, 1e-4, -0.1))
    np.testing.assert_array_equal(found, expected)
    assert (
        f"{shifted}: its scale and offset tags differ from those of b.tif: its values are multiplied by 1, and -1000"
        in (caplog.text)
    )
    parameters = open_event(event_of(*older, shifted)).parameters
    assert parameters["read_as"] == {"shifted.tif": {"units": [[1.0] * 3, pytest.approx([-1000.0] * 3)]}}


def test_values_of_another_scale_are_converted(tmp_path: Path) -> None:
    older = with_tags(tmp_path / "a.tif", RGB // 2, 0.5, 1.0)
    monitor = with_tags(tmp_path / "b.tif", RGB // 4, 1.0, 2.0)  # (v * 1 + 2 - 1) / 0.5
    np.testing.assert_array_equal(all_dates(older, older, monitor)[2], RGB // 4 * 2 + 2)


def test_equal_tags_change_nothing(tmp_path: Path) -> None:
    paths = [with_tags(tmp_path / f"{name}.tif", RGB, 1e-4, -0.1) for name in "ab"]
    np.testing.assert_array_equal(all_dates(*paths), [RGB, RGB])
    assert "read_as" not in open_event(event_of(*paths)).parameters


def in_order(path: Path, values: np.ndarray, *colors: int) -> Path:
    def name_colors(dataset: gdal.Dataset) -> None:
        for number, color in enumerate(colors, 1):
            dataset.GetRasterBand(number).SetColorInterpretation(color)

    return write_tiff(path, values, "PHOTOMETRIC=MINISBLACK", change=name_colors)


def test_a_date_with_its_colours_in_another_order_is_reordered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forward = (gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand)
    red_first = in_order(tmp_path / "a.tif", RGB, *forward)
    blue_first = in_order(tmp_path / "b.tif", RGB[..., ::-1], *forward[::-1])
    np.testing.assert_array_equal(all_dates(red_first, red_first, blue_first), [RGB] * 3)
    assert f"{blue_first}: its colours are in another order than those of a.tif: bands 3, 2, 1 are read" in caplog.text
    assert open_event(event_of(red_first, blue_first)).parameters["read_as"] == {"b.tif": {"bands": [3, 2, 1]}}
    # All dates alike: as they lie, as the published program reads them.
    np.testing.assert_array_equal(all_dates(blue_first, blue_first), [RGB[..., ::-1]] * 2)
    images = open_event(event_of(red_first, blue_first), ImageOptions(bands=(3, 2, 1)))
    np.testing.assert_array_equal(read_window(images.monitor, WHOLE).rgb, RGB[..., ::-1])
    np.testing.assert_array_equal(read_window(images.reference, WHOLE).rgb, RGB[..., ::-1])


# --- Pages -----------------------------------------------------------------------------------------------------------
def write_pages(path: Path, *pages: np.ndarray) -> Path:
    for number, page in enumerate(pages):
        source = gdal.Open(str(write_tiff(path.with_suffix(".page.tif"), page)))
        options = ["APPEND_SUBDATASET=YES"] if number else []
        gdal.GetDriverByName("GTiff").CreateCopy(str(path), source, options=options)
    path.with_suffix(".page.tif").unlink()
    return path


def test_pages_of_a_tiff_are_read_as_bands(tmp_path: Path) -> None:
    paged = write_pages(tmp_path / "pages.tif", *(RGB[..., band] for band in range(3)))
    np.testing.assert_array_equal(opened(paged).rgb, RGB)
    part = opened(paged, ImageOptions(bands=(3, 1, 1)), Window(5, 6, 7, 8))
    np.testing.assert_array_equal(part.rgb, RGB[6:14, 5:12][..., [2, 0, 0]])
    plain = write_tiff(tmp_path / "plain.tif", RGB)
    assert open_event(event_of(plain, paged)).parameters["read_as"] == {"pages.tif": {"pages": 3}}


@pytest.mark.parametrize(
    "pages", [(RGB[..., 0], RGB[:70, :, 0]), (RGB, RGB), (RGB[..., 0], DEEP[..., 0])], ids=["size", "bands", "type"]
)
def test_pages_that_are_no_bands_are_refused(tmp_path: Path, pages: tuple[np.ndarray, ...]) -> None:
    message = refused(write_pages(tmp_path / "pages.tif", *pages))
    assert "its pages are not the bands of one image (Page 1 (80P x 80L" in message


def test_a_label_of_several_pages_is_refused(tmp_path: Path) -> None:
    label = write_pages(tmp_path / "label.tif", RGB[..., 0], RGB[..., 1])
    image = write_tiff(tmp_path / "image.tif", RGB)
    with pytest.raises(EventError, match=r"2 band\(s\) of uint8; a label is one band"):
        open_label(event_of(image, image, label=label))


# --- Alpha and masks -------------------------------------------------------------------------------------------------
def test_near_infrared_that_is_flagged_as_alpha_is_no_mask(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    infrared = RNG.integers(0, 200, (SIDE, SIDE), dtype=np.uint8)
    infrared[:20] = 0  # water
    flagged = write_tiff(tmp_path / "flagged.tif", np.dstack([RGB, infrared]), "ALPHA=YES")
    plain = write_tiff(tmp_path / "plain.tif", np.dstack([RGB, infrared]), "ALPHA=NO")
    for bands in (None, (1, 2, 3)):
        images = open_event(event_of(plain, flagged), ImageOptions(bands=bands))
        pixels = read_window(images.monitor, WHOLE)
        np.testing.assert_array_equal(pixels.rgb, RGB)
        assert pixels.valid is None
        assert images.parameters["read_as"] == {"flagged.tif": {"near_infrared": 4}}
    assert caplog.text.count(f"{tmp_path}: band 4 is flagged as alpha, but most of its values lie between 0") == 1


@pytest.mark.parametrize("bands", [None, (1, 2, 3)])
@pytest.mark.parametrize("opaque", [1, 255])
def test_an_alpha_band_with_soft_edges_is_a_mask(tmp_path: Path, opaque: int, bands: tuple[int, ...] | None) -> None:
    values = np.full((SIDE, SIDE), opaque, np.uint8)
    values[:20], values[20:24] = 0, max(opaque // 2, 1)
    pixels = opened(
        write_tiff(tmp_path / "image.tif", np.dstack([RGB, values]), "ALPHA=YES"), ImageOptions(bands=bands)
    )
    assert pixels.valid is not None
    np.testing.assert_array_equal(pixels.valid, values > 0)


@pytest.mark.parametrize("side", [SIDE // 2, SIDE * 2])
def test_a_mask_of_another_size_is_refused(tmp_path: Path, side: int) -> None:
    image = write_tiff(tmp_path / "image.tif", RGB)
    mask = np.full((side, side), 255, np.uint8)
    write_tiff(
        tmp_path / "mask.tif", mask, change=lambda dataset: dataset.SetMetadataItem("INTERNAL_MASK_FLAGS_1", "2")
    ).rename(tmp_path / "image.tif.msk")
    assert f"its mask has {side} x {side} pixels, the image 80 x 80; remove the mask (image.tif.msk)" in refused(image)


# --- Types -----------------------------------------------------------------------------------------------------------
def test_bytes_are_read_unchanged(tmp_path: Path) -> None:
    pixels = opened(write_tiff(tmp_path / "image.tif", RGB), window=Window(x=4, y=10, width=7, height=20))
    np.testing.assert_array_equal(pixels.rgb, RGB[10:30, 4:11])
    assert pixels.valid is None


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64])
def test_deeper_images_are_stretched_between_percentiles(tmp_path: Path, kind: type[np.generic]) -> None:
    values = DEEP.astype(kind)
    pixels = opened(write_tiff(tmp_path / "image.tif", values))
    low, high = np.quantile(values.astype(float), [0.02, 0.98])
    np.testing.assert_array_equal(pixels.rgb, np.rint(np.clip((values - low) / (high - low), 0, 1) * 255))


def test_all_dates_of_an_event_have_the_same_stretch(tmp_path: Path) -> None:
    dark, bright = (np.full((SIDE, SIDE, 3), value, np.uint16) for value in (1000, 3000))
    paths = [
        write_tiff(tmp_path / name, values)
        for name, values in (("a.tif", dark), ("b.tif", bright), ("c.tif", (dark + bright) // 2))
    ]
    images = open_event(event_of(*paths), ImageOptions("minmax"))
    shown = [read_window(image, WHOLE).rgb[0, 0, 0] for image in (*images.historical, images.monitor)]
    assert shown == [0, 255, 128]  # 127.5, rounded to even
    assert images.parameters["stretch"] == ["minmax", 1000.0, 3000.0]


def test_stretch_none_does_not_change_values(tmp_path: Path) -> None:
    values = DEEP % 300
    pixels = opened(write_tiff(tmp_path / "image.tif", values), ImageOptions("none"))
    np.testing.assert_array_equal(pixels.rgb, np.minimum(values, 255))


def test_the_stretch_is_the_same_for_every_window_and_ignores_nodata(tmp_path: Path) -> None:
    values = DEEP.astype(np.int16)
    values[:20] = -9999
    path = write_tiff(tmp_path / "image.tif", values, nodata=-9999)
    low, high = np.quantile(values[20:].astype(float), [0.02, 0.98])
    expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    pixels = opened(path, window=Window(30, 10, 40, 60))
    np.testing.assert_array_equal(pixels.rgb, np.where(values < -9000, 0, expected)[10:70, 30:70])
    assert pixels.valid is not None
    np.testing.assert_array_equal(pixels.valid, (values != -9999).all(axis=2)[10:70, 30:70])


def test_the_stretch_of_a_large_image_is_computed_from_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("config.STRETCH_SAMPLE_SIDE", 40)
    path = write_tiff(tmp_path / "image.tif", DEEP)
    images = open_event(event_of(path, path))
    low, high = images.parameters["stretch"][1:]
    assert abs(low - 200) < 60  # of 0 to 10,000
    assert abs(high - 9800) < 60


def test_a_stale_overview_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.STRETCH_SAMPLE_SIDE", 20)
    path = write_tiff(tmp_path / "image.tif", DEEP)
    before = open_event(event_of(path, path)).parameters
    other = write_tiff(tmp_path / "other.tif", np.full_like(DEEP, 60_000))
    gdal.OpenEx(str(other), gdal.OF_READONLY).BuildOverviews("NEAREST", [2, 4])
    shutil.move(f"{other}.ovr", f"{path}.ovr")
    assert gdal.Open(str(path)).GetRasterBand(1).GetOverviewCount() == 2  # GDAL would use them by default
    assert open_event(event_of(path, path)).parameters == before


def test_a_constant_deep_image_is_black(tmp_path: Path) -> None:
    assert not opened(write_tiff(tmp_path / "image.tif", np.full_like(DEEP, 500))).rgb.any()


@pytest.mark.parametrize(
    ("values", "options"),
    [(DEEP.astype(np.complex64), ()), (RGB, ("PIXELTYPE=SIGNEDBYTE",))],
    ids=["complex", "signed"],
)
def test_other_data_types_are_refused(tmp_path: Path, values: np.ndarray, options: tuple[str, ...]) -> None:
    assert "only integers and floating-point numbers" in refused(write_tiff(tmp_path / "image.tif", values, *options))


# --- Bands -----------------------------------------------------------------------------------------------------------
def test_one_band_is_repeated(tmp_path: Path) -> None:
    pixels = opened(write_tiff(tmp_path / "image.tif", RGB[..., 0]))
    np.testing.assert_array_equal(pixels.rgb, np.repeat(RGB[..., :1], 3, axis=2))


def test_the_first_three_of_four_bands_are_taken(tmp_path: Path) -> None:
    values = np.dstack([RGB, RGB[..., 0] // 2])
    pixels = opened(write_tiff(tmp_path / "image.tif", values, "ALPHA=NO"))
    np.testing.assert_array_equal(pixels.rgb, RGB)
    assert pixels.valid is None


def test_bands_can_be_chosen(tmp_path: Path) -> None:
    values = RNG.integers(1, 256, (SIDE, SIDE, 6), dtype=np.uint8)
    path = write_tiff(tmp_path / "image.tif", values)
    np.testing.assert_array_equal(opened(path, ImageOptions(bands=(6, 2, 2))).rgb, values[..., [5, 1, 1]])
    assert "6 bands; name those for red, green and blue" in refused(path)
    assert "--bands 7,1,1 names a band that does not exist" in refused(path, ImageOptions(bands=(7, 1, 1)))


def test_two_bands_are_refused(tmp_path: Path) -> None:
    assert "2 bands" in refused(write_tiff(tmp_path / "image.tif", RGB[..., :2]))


def palette(dataset: gdal.Dataset) -> None:
    colors = gdal.ColorTable()
    for index in range(256):
        colors.SetColorEntry(index, (index, 255 - index, index // 2))
    dataset.GetRasterBand(1).SetColorTable(colors)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_palette_is_expanded(tmp_path: Path, kind: type[np.integer]) -> None:
    index = RGB[..., 0].astype(kind)
    pixels = opened(write_tiff(tmp_path / "image.tif", index, change=palette))
    np.testing.assert_array_equal(pixels.rgb, np.dstack([index, 255 - index, index // 2]))
    assert pixels.rgb.dtype == np.uint8


@pytest.mark.parametrize(
    ("other", "described"),
    [
        (DEEP, "3 band(s) of uint8 and 3 band(s) of uint16"),
        (RGB[..., 0], "3 band(s) of uint8 and 1 band(s) of uint8"),
        (np.dstack([RGB, RGB]), "6 bands"),
    ],
)
def test_images_of_different_types_or_bands_are_refused(tmp_path: Path, other: np.ndarray, described: str) -> None:
    first, second = write_tiff(tmp_path / "a.tif", RGB), write_tiff(tmp_path / "b.tif", other)
    assert described in refusal(second, lambda path: open_event(event_of(first, path)))


# --- Pixels without data ---------------------------------------------------------------------------------------------
def corner(dataset: gdal.Dataset) -> None:
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    valid = np.full((SIDE, SIDE), 255, np.uint8)
    valid[:2, :3] = 0
    dataset.GetRasterBand(1).GetMaskBand().WriteArray(valid)


def with_corner(value: float, kind: type[np.generic] = np.uint8) -> np.ndarray:
    values = RGB.astype(kind)
    values[:2, :3] = value
    return values


def inner_mask(path: Path) -> Path:
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", "YES")
    write_tiff(path, RGB, change=corner)
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", None)
    return path


def alpha(path: Path) -> Path:
    opacity = np.full((SIDE, SIDE, 1), 255, np.uint8)
    opacity[:2, :3] = 0
    return write_tiff(path, np.dstack([RGB, opacity]), "ALPHA=YES")


def palette_entry(path: Path) -> Path:
    index = np.full((SIDE, SIDE), 8, np.uint8)
    index[:2, :3] = 7
    return write_tiff(path, index, nodata=7, change=palette)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_tiff(path, with_corner(0), nodata=0),
        lambda path: write_tiff(path, with_corner(np.nan, np.float32)),
        lambda path: write_tiff(path, with_corner(np.nan, np.float32), nodata=float("nan")),
        lambda path: write_tiff(path, with_corner(np.inf, np.float64)),
        lambda path: write_tiff(path, with_corner(-3.4028234663852886e38, np.float32), nodata=-3.40282e38),
        lambda path: write_tiff(path, with_corner(-9999, np.int16), nodata=-9999),
        lambda path: write_tiff(path, RGB, change=corner),
        inner_mask,
        alpha,
        palette_entry,
    ],
    ids=["value", "NaN", "NaN declared", "infinite", "rounded", "16 bits", ".msk", "mask", "alpha", "palette"],
)
def test_pixels_without_data_are_marked(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    pixels = opened(write(tmp_path / "image.tif"))
    expected = np.ones((SIDE, SIDE), bool)
    expected[:2, :3] = False
    assert pixels.valid is not None
    np.testing.assert_array_equal(pixels.valid, expected)
    assert not pixels.rgb[~expected].any()
    assert opened(tmp_path / "image.tif", window=Window(5, 5, 20, 20)).valid is None


@pytest.mark.parametrize("zero_bands", [[], [0], [0, 2]])
def test_a_pixel_lacks_data_where_all_its_bands_have_the_nodata_value(tmp_path: Path, zero_bands: list[int]) -> None:
    values = RGB.copy()
    values[0, 0, zero_bands] = 0  # a dark pixel is not nodata
    pixels = opened(write_tiff(tmp_path / "image.tif", values, nodata=0))
    assert pixels.valid is None
    np.testing.assert_array_equal(pixels.rgb, values)


# --- Files that are refused ------------------------------------------------------------------------------------------
def test_a_vrt_named_tif_is_refused(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "source.tif", RGB)
    renamed_vrt = tmp_path / "image.tif"
    gdal.GetDriverByName("VRT").CreateCopy(str(renamed_vrt), gdal.Open(str(source)))
    assert renamed_vrt.read_bytes().startswith(b"<VRTDataset")
    assert "cannot be opened as a GeoTIFF" in refused(renamed_vrt)


def test_a_vrt_named_msk_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "image.tif", RGB)
    source = write_tiff(tmp_path / "source.tif", np.zeros((SIDE, SIDE), np.uint8))
    mask = gdal.Open(str(source))
    gdal.GetDriverByName("VRT").CreateCopy(f"{path}.msk", mask)
    assert f"{path}.msk: not a TIFF" in refused(path)


@pytest.mark.parametrize(
    "content", [b"", b"Hello, this is no image.\n", b"II*\0", b"/vsicurl/http://127.0.0.1:9/x.tif"]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(content)
    assert "cannot be opened as a GeoTIFF" in refused(path)


def test_a_file_that_gdal_refuses_without_an_error_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "image.tif", RGB)
    monkeypatch.setattr(gdal, "OpenEx", lambda *_, **__: None)
    assert "cannot be opened as a GeoTIFF (unknown format)" in refused(path)


@pytest.mark.parametrize("options", [(), ("COMPRESS=DEFLATE",), ("TILED=YES",)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_image_is_refused(tmp_path: Path, options: tuple[str, ...], share: float) -> None:
    path = write_tiff(tmp_path / "image.tif", RNG.integers(0, 256, (300, 300, 3), dtype=np.uint8), *options)
    os.truncate(path, int(path.stat().st_size * share))
    refusal(path, lambda path: opened(path, window=Window(0, 0, 300, 300)))


def test_an_image_below_the_minimum_size_is_refused(tmp_path: Path) -> None:
    assert opened(write_tiff(tmp_path / "a.tif", RGB[:64, :64]), window=Window(0, 0, 64, 64)).rgb.shape == (64, 64, 3)
    assert "80 x 63 pixels; at least 64 per side needed" in refused(write_tiff(tmp_path / "b.tif", RGB[:63]))


def test_an_image_above_the_maximum_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    gdal.GetDriverByName("GTiff").Create(str(path), 600_000, 600_000, 3, gdal.GDT_Byte, ["SPARSE_OK=YES", "TILED=YES"])
    assert "600000 x 600000 pixels; at most 100000 per side" in refused(path)


def test_an_image_with_huge_blocks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    options = ["SPARSE_OK=YES", "TILED=YES", "BLOCKXSIZE=16384", "BLOCKYSIZE=16384"]
    gdal.GetDriverByName("GTiff").Create(str(path), 20_000, 20_000, 3, gdal.GDT_Byte, options)
    assert "pieces of 16384 x 16384 pixels, 768 MiB each" in refused(path)


# --- Grids -----------------------------------------------------------------------------------------------------------
SCENE = np.kron(RNG.integers(1, 256, (30, 30, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))  # 240 x 240


def monitor_on_grid_of(reference: Path, monitor: Path) -> Pixels:
    return read_window(open_event(event_of(reference, monitor)).monitor, WHOLE)


def test_dates_on_one_grid_are_not_resampled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = monitor_on_grid_of(placed(tmp_path / "a.tif", SCENE[:80, :80]), placed(tmp_path / "b.tif", dx=0.4))
    np.testing.assert_array_equal(pixels.rgb, RGB)
    assert not caplog.messages


def test_a_date_on_another_grid_is_resampled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reference = placed(tmp_path / "a.tif")
    other = placed(tmp_path / "b.tif", SCENE, dx=-100, dy=-60)
    pixels = monitor_on_grid_of(reference, other)
    np.testing.assert_array_equal(pixels.rgb, SCENE[60:140, 100:180])
    assert pixels.valid is None
    (message,) = caplog.messages
    start = f"{other}: resampled to the grid of a.tif: its first pixel is at (100.0, 60.0) in the file; scale 1 x 1; "
    assert message.startswith(start)


def test_pixels_outside_a_date_are_without_data(tmp_path: Path) -> None:
    pixels = monitor_on_grid_of(placed(tmp_path / "a.tif"), placed(tmp_path / "b.tif", SCENE[:80, :80], dx=30, dy=-10))
    expected = np.zeros((SIDE, SIDE), bool)
    expected[:70, 30:] = True
    assert pixels.valid is not None
    np.testing.assert_array_equal(pixels.valid, expected)
    np.testing.assert_array_equal(pixels.rgb[:70, 30:], SCENE[10:80, :50])


@pytest.mark.parametrize(
    "transform",
    [
        (499_990.0, 0.5, 0.0, 4_200_007.3, 0.0, -0.5),
        (499_990.0, 0.3, 0.0, 4_200_007.0, 0.0, -0.3),
        (499_990.0, 1.1, 0.0, 4_200_007.0, 0.0, -1.2),
        (499_990.0, 0.6, 0.1, 4_200_007.0, 0.1, -0.6),
    ],
    ids=["shifted", "finer", "coarser", "rotated"],
)
def test_resampling_equals_gdalwarp(tmp_path: Path, transform: tuple[float, ...]) -> None:
    reference, other = placed(tmp_path / "a.tif"), tmp_path / "b.tif"
    write_raster(other, SCENE, Georeference(crs(32632), transform))
    warped = gdal.GetDriverByName("MEM").Create("", SIDE, SIDE, 3, gdal.GDT_Float32)
    warped.SetGeoTransform(TRANSFORM)
    warped.SetSpatialRef(crs(32632))
    for band in range(3):
        warped.GetRasterBand(band + 1).Fill(-1)
    gdal.Warp(warped, str(other), resampleAlg="bilinear", errorThreshold=0, dstNodata=-1)
    expected = warped.ReadAsArray().transpose(1, 2, 0)
    pixels = monitor_on_grid_of(reference, other)
    valid = np.ones((SIDE, SIDE), bool) if pixels.valid is None else pixels.valid
    np.testing.assert_array_equal(valid, (expected >= 0).all(axis=2))
    assert np.abs(pixels.rgb - expected)[valid].max() <= 0.501
    assert valid.mean() > 0.9
    part = read_window(open_event(event_of(reference, other)).monitor, Window(13, 31, 40, 22))
    np.testing.assert_array_equal(part.rgb, pixels.rgb[31:53, 13:53])


def test_a_date_without_georeference_is_accepted_if_sizes_agree(tmp_path: Path) -> None:
    write_raster(tmp_path / "b.tif", RGB, NOWHERE)
    np.testing.assert_array_equal(monitor_on_grid_of(placed(tmp_path / "a.tif"), tmp_path / "b.tif").rgb, RGB)


def event_refusal(first: Path, other: Path) -> str:
    """The error message for two images, which names both."""
    message = refusal(first, lambda path: open_event(event_of(path, other)))
    assert str(other) in message
    return message


def test_dates_on_incompatible_grids_are_refused(tmp_path: Path) -> None:
    reference = placed(tmp_path / "a.tif")
    write_raster(tmp_path / "b.tif", RGB[:70], NOWHERE)
    assert "sizes differ, and not both are georeferenced" in event_refusal(reference, tmp_path / "b.tif")
    message = event_refusal(reference, placed(tmp_path / "c.tif", code=32633))
    assert "CRSs differ (80 x 80 in WGS 84 / UTM zone 32N and 80 x 80 in WGS 84 / UTM zone 33N)" in message
    assert "do not overlap" in event_refusal(reference, placed(tmp_path / "d.tif", dx=80))
    write_raster(tmp_path / "e.tif", RGB, Georeference(None, (500003.0, *TRANSFORM[1:])))
    assert "only one has a CRS" in event_refusal(reference, tmp_path / "e.tif")
    write_raster(tmp_path / "f.tif", RGB, Georeference(crs(32632), (500000.0, 10, 0, 4200000.0, 0, -10)))
    assert "far larger" in event_refusal(reference, tmp_path / "f.tif")
    flat = tmp_path / "flat.tif"
    write_raster(flat, RGB, Georeference(None, (0.0, 1.0, 1.0, 0.0, 1.0, 1.0)))
    assert "is not invertible" in refused(flat)


def control_points(dx: float) -> Callable[[gdal.Dataset], object]:
    points = [gdal.GCP(500_000 + 0.5 * (x + dx), 4_200_000 - 0.5 * y, 0, x, y) for x in (0, 80) for y in (0, 80)]
    return lambda dataset: dataset.SetGCPs(points, crs(32632))


def test_grids_with_other_ground_control_points_are_refused(tmp_path: Path) -> None:
    first, second, third = (write_tiff(tmp_path / f"{dx}.tif", RGB, change=control_points(dx)) for dx in (0, 0.25, 3))
    np.testing.assert_array_equal(monitor_on_grid_of(first, second).rgb, RGB)
    assert "ground control points" in event_refusal(first, third)


# --- Alignment -------------------------------------------------------------------------------------------------------
@pytest.fixture
def shifted(tmp_path: Path) -> Event:
    scene = np.clip(SCENE + RNG.normal(0, 10, SCENE.shape), 0, 255).astype(np.uint8)
    return event_of(
        write_tiff(tmp_path / "a.tif", scene[9:209, 9:209]), write_tiff(tmp_path / "b.tif", scene[6:206, 14:214])
    )


def test_a_shift_is_corrected_on_request(shifted: Event, caplog: pytest.LogCaptureFixture) -> None:
    images = open_event(shifted, ImageOptions(align_shift=6))
    assert images.parameters["shifts"] == {"b.tif": [pytest.approx(-5, abs=0.1), pytest.approx(3, abs=0.1)]}
    window = Window(20, 20, 100, 100)
    reference, monitor = (read_window(image, window).rgb.astype(int) for image in (images.reference, images.monitor))
    assert np.abs(reference - monitor).mean() < 10
    assert "the shift is corrected" in caplog.text


@pytest.mark.parametrize("limit", [0, 5])
def test_a_shift_beyond_the_limit_is_not_corrected(shifted: Event, limit: float) -> None:
    images = open_event(shifted, ImageOptions(align_shift=limit))
    assert images.monitor.to_file is None
    assert images.parameters["shifts"] == {}


def test_an_aligned_image_is_not_resampled(tmp_path: Path) -> None:
    path, copy = write_tiff(tmp_path / "a.tif", SCENE), write_tiff(tmp_path / "b.tif", SCENE)
    assert open_event(event_of(path, copy), ImageOptions(align_shift=10)).monitor.to_file is None


def test_an_image_is_not_resampled_if_its_shift_cannot_be_estimated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [write_tiff(tmp_path / name, RNG.integers(0, 256, (240, 240, 3), dtype=np.uint8)) for name in "ab"]
    assert open_event(event_of(*paths), ImageOptions(align_shift=1e9)).monitor.to_file is None
    assert "no shift against a could be estimated" in caplog.text


# --- Labels ----------------------------------------------------------------------------------------------------------
def label_of(reference: Path, monitor: Path, label: Path) -> np.ndarray:
    return whole(open_label(event_of(reference, monitor, label=label)))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_labels_are_integers_of_any_size(tmp_path: Path, kind: type[np.integer]) -> None:
    image, label = write_tiff(tmp_path / "image.tif", RGB), RGB[..., 0].astype(kind)
    read = label_of(image, image, write_tiff(tmp_path / "label.tif", label))
    np.testing.assert_array_equal(read, label)


@pytest.mark.parametrize(
    ("values", "described"),
    [
        (RGB[..., 0].astype(np.complex64), "1 band(s) of complex64"),
        (RGB, "3 band(s) of uint8; a label is one band of whole numbers"),
        (RGB[:70, :, 0], "sizes differ"),
    ],
)
def test_other_labels_are_refused(tmp_path: Path, values: np.ndarray, described: str) -> None:
    image = write_tiff(tmp_path / "image.tif", RGB)
    label = write_tiff(tmp_path / "label.tif", values)
    assert described in refusal(label, lambda path: label_of(image, image, path))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_labels_may_be_floats_with_whole_values(tmp_path: Path, kind: type[np.floating]) -> None:
    image, values = write_tiff(tmp_path / "image.tif", RGB), RGB[..., 0].astype(kind)
    values[0, :4] = [-3, -3.4e38, 3.4e38, -0.0]  # nodata values of other programs
    read = label_of(image, image, write_tiff(tmp_path / "label.tif", values))
    assert np.issubdtype(read.dtype, np.integer)
    np.testing.assert_array_equal(read[1:], RGB[1:, :, 0])
    np.testing.assert_array_equal(read[0, :4] > 1, [False, False, True, False])
    assert read[0, 0] == -3


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (np.float32, 0.7, "0.7"),
        (np.float64, 1.99999999, "1.99999999"),
        (np.float32, np.nan, "nan"),
        (np.float64, -np.inf, "-inf"),
    ],
)
def test_labels_with_broken_values_are_refused_when_they_are_read(
    tmp_path: Path, kind: type[np.floating], value: float, shown: str
) -> None:
    image, values = write_tiff(tmp_path / "image.tif", RGB), np.zeros((SIDE, SIDE), kind)
    values[30, 20], values[30, 21], values[31, 0] = value, 0.1, 0.2
    path = write_tiff(tmp_path / "label.tif", values)
    label = open_label(event_of(image, image, label=path))
    assert not label.read(Window(0, 0, SIDE, 30)).any()
    assert f"the value {shown} is not whole" in refusal(path, lambda _: whole(label))


def test_broken_values_are_found_in_resampled_labels(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "image.tif", RGB)
    path = write_tiff(tmp_path / "label.tif", np.full((SIDE, SIDE), 2.5, np.float32))
    label = open_label(event_of(image, image, label=path), (3.0, -2.0))
    assert "the value 2.5 is not whole" in refusal(path, lambda _: whole(label))


@pytest.mark.parametrize(("kind", "palette"), [(np.uint8, False), (np.uint16, False), (np.uint8, True)])
def test_labels_may_be_png(tmp_path: Path, kind: type[np.integer], palette: bool) -> None:
    image, values = write_tiff(tmp_path / "image.tif", RGB), RGB[..., 0].astype(kind)
    read = label_of(image, image, write_png(tmp_path / "label.PNG", values, palette))
    np.testing.assert_array_equal(read, values)


def test_side_files_of_a_png_label_do_not_matter(tmp_path: Path) -> None:
    image = placed(tmp_path / "image.tif")
    label = write_png(tmp_path / "label.png", RGB[..., 0])
    (tmp_path / "label.pgw").write_text("1\n0\n0\n-1\n0\n0\n")
    (tmp_path / "label.wld").write_text("2\n0\n0\n-2\n7\n7\n")
    (tmp_path / "label.png.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:4326</SRS><GeoTransform>1, 2, 0, 3, 0, -2</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>5</NoDataValue><Scale>9</Scale></PAMRasterBand></PAMDataset>'
    )
    np.testing.assert_array_equal(label_of(image, image, label), RGB[..., 0])


def test_a_png_label_is_resampled_to_the_grid_of_the_reference(tmp_path: Path) -> None:
    reference, monitor = placed(tmp_path / "a.tif"), placed(tmp_path / "b.tif", SCENE, dx=-100, dy=20)
    expected = np.zeros((SIDE, SIDE), int)
    expected[20:] = SCENE[:60, 100:180, 0]
    read = label_of(reference, monitor, write_png(tmp_path / "label.png", SCENE[..., 0]))
    np.testing.assert_array_equal(read, expected)


def cut_off_png(path: Path) -> None:
    write_png(path, RGB[..., 0])
    os.truncate(path, path.stat().st_size // 2)


def with_foreign_mask(path: Path) -> None:
    write_png(path, RGB[..., 0])
    path.with_name(f"{path.name}.msk").write_text("<VRTDataset/>")


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: write_png(path, RGB), "3 band(s) of uint8; a label is one band of whole numbers"),
        (lambda path: write_png(path, RGB[..., :2]), "2 band(s) of uint8"),
        (lambda path: write_png(path, RGB[:70, :, 0]), "sizes differ (80 x 70 and 80 x 80); a PNG label has"),
        (lambda path: write_tiff(path, RGB[..., 0]), "cannot be opened as a PNG"),
        (lambda path: path.write_text("no image"), "cannot be opened as a PNG"),
        (cut_off_png, "damaged or cut off"),
        (with_foreign_mask, "not a TIFF, but GDAL would read it as the mask of label.png"),
    ],
)
def test_other_png_labels_are_refused(tmp_path: Path, write: Callable[[Path], object], problem: str) -> None:
    image, label = write_tiff(tmp_path / "image.tif", RGB), tmp_path / "label.png"
    write(label)
    assert problem in refusal(label, lambda path: label_of(image, image, path))


def test_a_png_named_as_a_geotiff_is_no_label(tmp_path: Path) -> None:
    image, label = write_tiff(tmp_path / "image.tif", RGB), write_png(tmp_path / "label.tif", RGB[..., 0])
    assert "cannot be opened as a GeoTIFF" in refusal(label, lambda path: label_of(image, image, path))


def test_a_label_with_another_georeference_than_its_monitor_image_is_refused(tmp_path: Path) -> None:
    image = placed(tmp_path / "image.tif")
    label = placed(tmp_path / "label.tif", RGB[..., 0], dx=2)
    assert "the label must be on the monitor image's grid" in refusal(label, lambda path: label_of(image, image, path))


def test_a_label_is_resampled_to_the_grid_of_the_reference(tmp_path: Path) -> None:
    reference, monitor = placed(tmp_path / "a.tif"), placed(tmp_path / "b.tif", SCENE, dx=-100, dy=20)
    label = placed(tmp_path / "label.tif", SCENE[..., 0], dx=-100, dy=20)
    expected = np.zeros((SIDE, SIDE), int)
    expected[20:] = SCENE[:60, 100:180, 0]
    np.testing.assert_array_equal(label_of(reference, monitor, label), expected)


@pytest.mark.parametrize(("write", "name"), [(write_tiff, "label.tif"), (write_png, "label.png")])
def test_a_label_is_shifted_with_its_monitor_image(
    tmp_path: Path, write: Callable[[Path, np.ndarray], Path], name: str
) -> None:
    image = write_tiff(tmp_path / "image.tif", RGB)
    label = write(tmp_path / name, RGB[..., 0])
    read = whole(open_label(event_of(image, image, label=label), (3.0, -2.0)))
    np.testing.assert_array_equal(read[2:, :-3], RGB[:-2, 3:, 0])
    assert not read[:2].any()


def test_one_file_is_read_by_several_threads(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "image.tif", np.tile(RGB, (5, 5, 1)), "COMPRESS=DEFLATE", "TILED=YES")
    image = open_event(event_of(path, path)).reference
    windows = [Window(x, y, SIDE, SIDE) for x in range(0, 320, SIDE) for y in range(0, 320, SIDE)] * 4
    with ThreadPoolExecutor(4) as threads:
        for pixels in threads.map(lambda window: read_window(image, window), windows):
            np.testing.assert_array_equal(pixels.rgb, RGB)


def test_gdal_warnings_of_no_thread_are_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(gdal.Error, gdal.CE_Warning, 1, "from a thread").result()
    gdal.Error(gdal.CE_Warning, 1, "from here")
    assert gdal.GetLastErrorMsg() == "from here"
    assert capfd.readouterr() == ("", "")


def test_memory_of_a_window_of_the_largest_image_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.STRETCH_SAMPLE_SIDE", 16)  # each sampled row takes as much time as memory
    path = tmp_path / "image.tif"
    options = ["SPARSE_OK=YES", "TILED=YES", "BIGTIFF=YES", "COMPRESS=DEFLATE"]
    gdal.GetDriverByName("GTiff").Create(str(path), 100_000, 100_000, 3, gdal.GDT_UInt16, options)
    tracemalloc.start()
    pixels = opened(path, window=Window(99_000, 98_000, 1000, 2000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.rgb.shape == (2000, 1000, 3)
    assert peak < 256 << 20


def test_a_truncated_file_is_reported_as_damaged(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "image.tif", np.tile(RGB, (4, 4, 1)))
    images = open_event(event_of(path, path))
    os.truncate(path, 20_000)
    with pytest.raises(EventError, match="damaged or cut off"):
        read_window(images.reference, Window(0, 200, 100, 100))


def test_an_image_that_would_be_the_label_by_its_place_is_refused(tmp_path: Path) -> None:
    paths = [write_tiff(tmp_path / f"2019061{day}.tif", RGB) for day in range(4)]
    event = Event(tmp_path, paths[0], tuple(paths[2:]), paths[1])
    with pytest.raises(EventError, match=r"20190611.tif: taken as the label, .* it has 3 bands; name"):
        open_event(event)
    write_tiff(paths[1], RGB[..., 0])
    open_event(event)
