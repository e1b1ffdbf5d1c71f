import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from osgeo import gdal, gdal_array, osr

from img_io import (
    PARAMETERS_TAG,
    Georeference,
    is_current,
    open_event,
    open_image,
    read_label,
    read_map,
    read_parameters,
    read_window,
    write_picture,
    write_preview,
    write_raster,
)
from tests.scripts import run_process
from utils import EventError, Window

NOWHERE = Georeference(None, None)
TRANSFORM = (500000.0, 0.5, 0.0, 4200000.0, 0.0, -0.5)
PARAMETERS = {"patch_size": 2048, "sam_params": {"pred_iou_thresh": 0.6}}
RNG = np.random.default_rng(0)
RGB = RNG.integers(1, 256, (40, 30, 3), dtype=np.uint8)  # without 0: room for a nodata value
MAP = RNG.random((40, 30), dtype=np.float32)


def crs(code: int) -> osr.SpatialReference:
    reference = osr.SpatialReference()
    reference.ImportFromEPSG(code)
    return reference


def write_tiff(
    path: Path,
    values: np.ndarray,
    *options: str,
    nodata: float | None = None,
    change: Callable[[gdal.Dataset], object] | None = None,
) -> Path:
    """A GeoTIFF as other programs write it; `change` is done to it before it is closed."""
    bands = np.atleast_3d(values)
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(values.dtype)
    height, width, count = bands.shape
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), width, height, count, kind, list(options))
    for band in range(count):
        dataset.GetRasterBand(band + 1).WriteArray(bands[:, :, band])
        if nodata is not None:
            dataset.GetRasterBand(band + 1).SetNoDataValue(nodata)
    if change is not None:
        change(dataset)
    return path


def placed(path: Path, code: int = 32632, shift: float = 0.0, values: np.ndarray = RGB) -> Path:
    """An image that lies `shift` pixels further east."""
    x, *others = TRANSFORM
    write_raster(path, values, Georeference(crs(code), (x + shift * others[0], *others)))
    return path


def refusal(path: Path, read: Callable[[Path], object] = open_image) -> str:
    """The one line that a file is refused with, which names it."""
    with pytest.raises(EventError) as refused:
        read(path)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# --- Written and read back -------------------------------------------------------------------------------------------
def test_a_map_comes_back_with_its_place_and_parameters(tmp_path: Path) -> None:
    path = tmp_path / "event" / "map.tif"
    write_raster(path, MAP, Georeference(crs(32632), TRANSFORM), PARAMETERS)
    np.testing.assert_array_equal(read_map(path), MAP)
    assert read_parameters(path) == PARAMETERS
    dataset = gdal.Open(str(path))
    assert dataset.GetGeoTransform() == TRANSFORM
    assert dataset.GetSpatialRef().IsSame(crs(32632))
    assert list(path.parent.iterdir()) == [path]


def test_an_image_comes_back_with_its_place(tmp_path: Path) -> None:
    image = open_image(placed(tmp_path / "image.tif"))
    assert image.shape == (40, 30)
    np.testing.assert_array_equal(read_window(image, Window(0, 0, 30, 40)), RGB)
    spatial_reference, transform = image.georeference
    assert spatial_reference is not None
    assert spatial_reference.IsSame(crs(32632))
    assert transform == TRANSFORM


def test_an_image_without_a_place_has_none(tmp_path: Path) -> None:
    write_raster(tmp_path / "image.tif", RGB, NOWHERE)
    assert open_image(tmp_path / "image.tif").georeference == NOWHERE


def test_a_raster_without_parameters_has_none(tmp_path: Path) -> None:
    write_raster(tmp_path / "map.tif", MAP, NOWHERE)
    assert read_parameters(tmp_path / "map.tif") is None


def test_a_window_is_the_rows_and_columns_it_names(tmp_path: Path) -> None:
    window = Window(x=4, y=10, width=7, height=20)
    pixels = read_window(open_image(write_tiff(tmp_path / "image.tif", RGB)), window)
    np.testing.assert_array_equal(pixels, RGB[10:30, 4:11])
    assert pixels.flags.c_contiguous


def test_pictures(tmp_path: Path) -> None:
    write_picture(tmp_path / "rgb.png", RGB)
    shown = cv2.imread(str(tmp_path / "rgb.png"))
    assert shown is not None
    np.testing.assert_array_equal(shown[..., ::-1], RGB)
    binary = MAP > 0.5
    write_preview(tmp_path / "binary.png", binary)
    preview = cv2.imread(str(tmp_path / "binary.png"), cv2.IMREAD_UNCHANGED)
    assert preview is not None
    np.testing.assert_array_equal(preview, np.where(binary, 255, 0))


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
    message = refusal(write_tiff(tmp_path / "image.tif", values))
    assert described in message
    assert "docs/data.md" in message


def test_a_palette_is_refused(tmp_path: Path) -> None:
    def add_palette(dataset: gdal.Dataset) -> None:
        colors = gdal.ColorTable()
        colors.SetColorEntry(1, (255, 0, 0))
        dataset.GetRasterBand(1).SetColorTable(colors)

    assert "1 band(s)" in refusal(write_tiff(tmp_path / "image.tif", RGB[..., 0], change=add_palette))


def test_a_vrt_in_disguise_is_not_followed(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "source.tif", RGB)
    disguised = tmp_path / "image.tif"
    gdal.GetDriverByName("VRT").CreateCopy(str(disguised), gdal.Open(str(source)))
    assert disguised.read_bytes().startswith(b"<VRTDataset")
    assert "cannot be opened as a GeoTIFF" in refusal(disguised)


@pytest.mark.parametrize("content", [b"", b"Hello, this is no image.\n", b"II*\0"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(content)
    assert "cannot be opened as a GeoTIFF" in refusal(path)


@pytest.mark.parametrize("options", [(), ("COMPRESS=DEFLATE",), ("TILED=YES",)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_image_is_refused(tmp_path: Path, options: tuple[str, ...], share: float) -> None:
    path = write_tiff(tmp_path / "image.tif", RNG.integers(0, 256, (300, 300, 3), dtype=np.uint8), *options)
    os.truncate(path, int(path.stat().st_size * share))
    refusal(path, lambda path: read_window(open_image(path), Window(0, 0, 300, 300)))


def test_nodata_pixels_are_refused(tmp_path: Path) -> None:
    values = RGB.copy()
    values[-1, -1] = 0
    assert "nodata" in refusal(write_tiff(tmp_path / "image.tif", values, nodata=0))


def test_masked_pixels_are_refused(tmp_path: Path) -> None:
    def mask_corner(dataset: gdal.Dataset) -> None:
        dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
        valid = np.full(RGB.shape[:2], 255, np.uint8)
        valid[0, 0] = 0
        dataset.GetRasterBand(1).GetMaskBand().WriteArray(valid)

    assert "nodata" in refusal(write_tiff(tmp_path / "image.tif", RGB, change=mask_corner))


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


# --- Labels and maps -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32])
def test_labels_are_integers_of_any_size(tmp_path: Path, kind: type[np.integer]) -> None:
    label = RGB[..., 0].astype(kind)
    read = read_label(write_tiff(tmp_path / "label.tif", label))
    np.testing.assert_array_equal(read, label)
    assert read.dtype == kind


@pytest.mark.parametrize(("values", "described"), [(MAP, "1 band(s) of float32"), (RGB, "3 band(s) of uint8")])
def test_other_labels_are_refused(tmp_path: Path, values: np.ndarray, described: str) -> None:
    assert described in refusal(write_tiff(tmp_path / "label.tif", values), read_label)


@pytest.mark.parametrize("values", [MAP.astype(np.float64), RGB[..., 0], np.dstack([MAP, MAP])])
def test_other_rasters_are_no_maps(tmp_path: Path, values: np.ndarray) -> None:
    assert "no float32 map of one band" in refusal(write_tiff(tmp_path / "map.tif", values), read_map)


def test_a_missing_map_is_no_map(tmp_path: Path) -> None:
    refusal(tmp_path / "map.tif", read_map)


# --- Maps that can be kept -------------------------------------------------------------------------------------------
def test_a_missing_map_is_not_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not is_current(tmp_path / "map.tif", MAP.shape, PARAMETERS)
    assert not caplog.messages


def test_a_map_of_the_same_parameters_is_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_raster(tmp_path / "map.tif", MAP, NOWHERE, PARAMETERS)
    assert is_current(tmp_path / "map.tif", MAP.shape, PARAMETERS)
    assert not caplog.messages


def test_a_map_of_another_program_is_current_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tiff(tmp_path / "map.tif", MAP)
    assert is_current(path, MAP.shape, PARAMETERS)
    assert caplog.messages == [f"{path}: does not say how it was made; taken as it is"]


@pytest.mark.parametrize(
    ("parameters", "changed"),
    [
        (PARAMETERS | {"patch_size": 1024}, "patch_size"),
        (PARAMETERS | {"sam_params": {"pred_iou_thresh": 0.5}}, "sam_params"),
        (PARAMETERS | {"new": 1, "patch_size": 1}, "new, patch_size"),
        ({"patch_size": 2048}, "sam_params"),
    ],
)
def test_a_map_of_other_parameters_is_not_current(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, parameters: dict[str, object], changed: str
) -> None:
    path = tmp_path / "map.tif"
    write_raster(path, MAP, NOWHERE, PARAMETERS)
    assert not is_current(path, MAP.shape, parameters)
    assert caplog.messages == [f"{path}: was made with another {changed}; made again"]


def test_a_map_of_another_size_is_not_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_raster(tmp_path / "map.tif", MAP, NOWHERE, PARAMETERS)
    assert not is_current(tmp_path / "map.tif", (40, 31), PARAMETERS)
    assert "has the size of other images; made again" in caplog.messages[0]


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_map_is_not_current(tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float) -> None:
    path = tmp_path / "map.tif"
    write_raster(path, MAP, NOWHERE, PARAMETERS)
    os.truncate(path, int(path.stat().st_size * share))
    assert not is_current(path, MAP.shape, PARAMETERS)
    (warning,) = caplog.messages
    assert str(path) in warning
    assert warning.endswith("made again")


def test_a_map_with_damaged_parameters_is_not_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "map.tif"
    write_raster(path, MAP, NOWHERE)
    gdal.OpenEx(str(path), gdal.OF_UPDATE).SetMetadataItem(PARAMETERS_TAG, "{")
    assert not is_current(path, MAP.shape, PARAMETERS)
    assert "is damaged; remove the file; made again" in caplog.text


def test_an_image_in_the_place_of_a_map_is_not_current(tmp_path: Path) -> None:
    assert not is_current(write_tiff(tmp_path / "map.tif", RGB), (40, 30), PARAMETERS)


# --- Full disks ------------------------------------------------------------------------------------------------------
MEBIBYTE = 1 << 20
NOISE = "np.random.default_rng(0).random((700, 700), np.float32)"  # 2 MB that do not compress
WRITE_WITH_LITTLE_ROOM = f"""
import resource, signal, sys
from pathlib import Path
import numpy as np
from img_io import Georeference, write_raster
from utils import EventError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    write_raster(Path(sys.argv[1]), {NOISE}, Georeference(None, None), {{"patch_size": 2048}})
except EventError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 100, 5000, MEBIBYTE])
def test_a_file_that_may_not_grow_is_not_left_behind(tmp_path: Path, room: int) -> None:
    path = tmp_path / "map.tif"
    done = run_process("-c", WRITE_WITH_LITTLE_ROOM, path, room)
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{path}: ")
    assert "cannot be written" in line
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_what_was_there(small_disk: Path) -> None:
    path = small_disk / "map.tif"
    write_raster(path, MAP, NOWHERE, PARAMETERS)
    large = RNG.random((700, 700), dtype=np.float32)
    with pytest.raises(EventError, match="No space left"):
        write_raster(path, large, NOWHERE, PARAMETERS)
    assert list(small_disk.iterdir()) == [path]
    np.testing.assert_array_equal(read_map(path), MAP)


def test_a_picture_on_a_full_disk_is_not_left_behind(small_disk: Path) -> None:
    with pytest.raises(EventError, match="No space left"):
        write_picture(small_disk / "picture.png", RNG.integers(0, 256, (800, 800, 3), dtype=np.uint8))
    assert not list(small_disk.iterdir())
