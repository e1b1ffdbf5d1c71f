import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from osgeo import gdal, osr

from gdal_files import Georeference
from map_io import (
    PARAMETERS_TAG,
    is_current,
    open_map,
    read_parameters,
    write_picture,
    write_preview,
    write_raster,
)
from raster_store import MemoryRaster, RasterStore
from tests.helpers import whole
from tests.scripts import run_process
from tests.tiffs import NOWHERE, TRANSFORM, crs, refusal, write_tiff
from utils import EventError, Window

PARAMETERS = {"patch_size": 2048, "sam_params": {"pred_iou_thresh": 0.6}}
RNG = np.random.default_rng(0)
RGB = RNG.integers(1, 256, (40, 30, 3), dtype=np.uint8)
MAP = RNG.random((40, 30), dtype=np.float32)


# --- Written and read back -------------------------------------------------------------------------------------------
def test_a_map_comes_back_with_its_place_and_parameters(tmp_path: Path) -> None:
    path = tmp_path / "event" / "map.tif"
    write_raster(path, MAP, Georeference(crs(32632), TRANSFORM), PARAMETERS)
    np.testing.assert_array_equal(whole(open_map(path)), MAP)
    assert read_parameters(path) == PARAMETERS
    dataset = gdal.Open(str(path))
    assert dataset.GetGeoTransform() == TRANSFORM
    assert dataset.GetSpatialRef().IsSame(crs(32632))
    assert list(path.parent.iterdir()) == [path]


def test_a_raster_without_parameters_has_none(tmp_path: Path) -> None:
    write_raster(tmp_path / "map.tif", MAP, NOWHERE)
    assert read_parameters(tmp_path / "map.tif") is None


def test_pictures(tmp_path: Path) -> None:
    write_picture(tmp_path / "rgb.png", RGB)
    shown = cv2.imread(str(tmp_path / "rgb.png"))
    assert shown is not None
    np.testing.assert_array_equal(shown[..., ::-1], RGB)
    binary = MAP > 0.5
    write_preview(tmp_path / "binary.png", MemoryRaster(binary))
    preview = cv2.imread(str(tmp_path / "binary.png"), cv2.IMREAD_UNCHANGED)
    assert preview is not None
    np.testing.assert_array_equal(preview, np.where(binary, 255, 0))


@pytest.mark.parametrize("shape", [(1, 1), (513, 7), (300, 20_000)])  # the last: two bands
def test_rasters_of_any_size_come_back(tmp_path: Path, shape: tuple[int, int]) -> None:
    path, georeference = tmp_path / "map.tif", Georeference(crs(32632), TRANSFORM)
    values = RNG.random(shape, dtype=np.float32)
    with RasterStore(tmp_path / "map.raw", shape) as store:
        store.write(Window(0, 0, shape[1], shape[0]), values)
        write_raster(path, store, georeference, PARAMETERS)
    np.testing.assert_array_equal(whole(open_map(path)), values)
    write_raster(tmp_path / "copy.tif", open_map(path), georeference, PARAMETERS)
    np.testing.assert_array_equal(whole(open_map(tmp_path / "copy.tif")), values)
    write_preview(tmp_path / "preview.png", MemoryRaster(values > 0.5))
    preview = cv2.imread(str(tmp_path / "preview.png"), cv2.IMREAD_UNCHANGED)
    assert preview is not None
    assert preview.dtype == np.uint8
    np.testing.assert_array_equal(preview, np.where(values > 0.5, 255, 0))
    assert {file.name for file in tmp_path.iterdir()} == {"map.tif", "copy.tif", "preview.png"}


def test_what_a_killed_run_left_is_no_hindrance(tmp_path: Path) -> None:
    path, left = tmp_path / "map.tif", tmp_path / ".map.tif.part"
    write_raster(path, RNG.random((700, 700), dtype=np.float32), NOWHERE)
    path.rename(left)
    os.truncate(left, left.stat().st_size // 2)
    write_raster(path, MAP, NOWHERE)
    np.testing.assert_array_equal(whole(open_map(path)), MAP)
    assert list(tmp_path.iterdir()) == [path]


def test_no_side_file_is_left_for_a_crs_that_a_geotiff_cannot_hold(tmp_path: Path) -> None:
    rotated_pole = osr.SpatialReference()
    rotated_pole.SetFromUserInput("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18")
    write_raster(tmp_path / "map.tif", MAP, Georeference(rotated_pole, TRANSFORM))
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


class Flickering:
    """A raster that is another one each time."""

    shape = MAP.shape

    def read(self, window: Window) -> np.ndarray:
        return RNG.random((window.height, window.width), dtype=np.float32)


def test_a_file_that_does_not_hold_what_was_written_is_removed(tmp_path: Path) -> None:
    message = refusal(tmp_path / "map.tif", lambda path: write_raster(path, Flickering(), NOWHERE))
    assert message.endswith("cannot be written (it does not hold what was written)")
    assert not list(tmp_path.iterdir())


def test_a_damaged_source_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source.tif"
    write_raster(source, RNG.random((700, 700), dtype=np.float32), NOWHERE)
    os.truncate(source, source.stat().st_size // 2)
    assert "damaged or cut off" in refusal(
        source, lambda path: write_raster(tmp_path / "map.tif", open_map(path), NOWHERE)
    )
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("values", [MAP.astype(np.float64), RGB[..., 0], np.dstack([MAP, MAP])])
def test_other_rasters_are_no_maps(tmp_path: Path, values: np.ndarray) -> None:
    assert "no float32 map of one band" in refusal(write_tiff(tmp_path / "map.tif", values), open_map)


def test_a_missing_map_is_no_map(tmp_path: Path) -> None:
    refusal(tmp_path / "map.tif", open_map)


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
import resource, sys
from pathlib import Path
import numpy as np
from gdal_files import Georeference
from map_io import write_preview, write_raster
from raster_store import MemoryRaster
from utils import EventError

values, path = {NOISE}, Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    if path.suffix == ".tif":
        write_raster(path, values, Georeference(None, None), {{"patch_size": 2048}})
    else:
        write_preview(path, MemoryRaster(values > 0.5))
except EventError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "room"), [*(("map.tif", room) for room in (0, 100, 5000, MEBIBYTE)), ("map.png", 0), ("map.png", 5000)]
)
def test_a_file_that_may_not_grow_is_not_left_behind(tmp_path: Path, name: str, room: int) -> None:
    path = tmp_path / name
    done = run_process("-c", WRITE_WITH_LITTLE_ROOM, path, room)
    assert done.stdout.splitlines() == [f"{path}: cannot be written (File too large)"]
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_what_was_there(small_disk: Path) -> None:
    path = small_disk / "map.tif"
    write_raster(path, MAP, NOWHERE, PARAMETERS)
    large = RNG.random((700, 700), dtype=np.float32)
    with pytest.raises(EventError, match="No space left"):
        write_raster(path, large, NOWHERE, PARAMETERS)
    assert list(small_disk.iterdir()) == [path]
    np.testing.assert_array_equal(whole(open_map(path)), MAP)


def test_a_picture_on_a_full_disk_is_not_left_behind(small_disk: Path) -> None:
    with pytest.raises(EventError, match="No space left"):
        write_picture(small_disk / "picture.png", RNG.integers(0, 256, (800, 800, 3), dtype=np.uint8))
    assert not list(small_disk.iterdir())


def test_a_preview_on_a_full_disk_is_not_left_behind(small_disk: Path) -> None:
    with pytest.raises(EventError, match="No space left"):
        write_preview(small_disk / "preview.png", MemoryRaster(RNG.random((4000, 4000)) > 0.5))
    assert not list(small_disk.iterdir())


# --- Memory ----------------------------------------------------------------------------------------------------------
POST_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from eval_metrics import binarize_anomaly_map, binarize_by_quantile, score_binary_map
from gdal_files import Georeference
from map_io import is_current, open_map, write_preview, write_raster
from raster_store import RasterStore
from utils import Window

folder, side = Path(sys.argv[1]), int(sys.argv[2])
with RasterStore(folder / "map.raw", (side, side)) as store:
    store.write(Window(0, 0, 600, 600), np.ones((600, 600), np.float32))
    write_raster(folder / "map.tif", store, Georeference(None, None), {})
assert is_current(folder / "map.tif", (side, side), {})
changes = open_map(folder / "map.tif")
changed = binarize_by_quantile(changes, 0.7)
anomalous = binarize_anomaly_map(changes, 0.08, 0.0003, 512, 3, normalize=True)
write_preview(folder / "map.png", anomalous)
assert score_binary_map(changed, changes, anomalous, 0.1).recall == 0  # its label values are 0 and 1
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def test_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    peaks = []  # KiB
    for side in (4000, 8000):  # 61 and 244 MiB
        done = run_process("-c", POST_PROCESS, tmp_path, side)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 32 << 10, peaks
