import os
import re
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from osgeo import gdal, osr
from osgeo_utils.samples.validate_cloud_optimized_geotiff import validate

import config
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from rasters.maps import PARAMETERS_TAG, MapState, ScoreMap, find_map, map_state, map_tags, read_parameters
from rasters.png import write_preview
from rasters.raster import MemoryRaster, RawRaster
from tests.helpers import whole
from tests.scripts import run_process
from tests.tiffs import NOWHERE, TRANSFORM, crs, refusal, write_tiff
from utils import EventError, Window

PARAMETERS = {"patch_size": 2048, "sam_params": {"pred_iou_thresh": 0.6}}
RNG = np.random.default_rng(0)
RGB = RNG.integers(1, 256, (40, 30, 3), dtype=np.uint8)
TAGS = map_tags(PARAMETERS, "sam.pth")
MAP = RNG.random((40, 30), dtype=np.float32)


# --- Writing and reading ---------------------------------------------------------------------------------------------
def test_a_map_is_read_back_with_georeference_and_parameters(tmp_path: Path) -> None:
    path = tmp_path / "event" / "map.tif"
    write_raster(path, MAP, Georeference(crs(32632), TRANSFORM), TAGS)
    np.testing.assert_array_equal(whole(ScoreMap(path)), MAP)
    assert read_parameters(path) == PARAMETERS
    dataset = gdal.Open(str(path))
    assert dataset.GetGeoTransform() == TRANSFORM
    assert dataset.GetSpatialRef().IsSame(crs(32632))
    assert list(path.parent.iterdir()) == [path]


def test_a_raster_without_parameters_has_none(tmp_path: Path) -> None:
    write_raster(tmp_path / "map.tif", MAP, NOWHERE)
    assert read_parameters(tmp_path / "map.tif") is None


def test_previews(tmp_path: Path) -> None:
    binary = MAP > 0.5
    write_preview(tmp_path / "binary.png", MemoryRaster(binary))
    preview = cv2.imread(str(tmp_path / "binary.png"), cv2.IMREAD_UNCHANGED)
    assert preview is not None
    np.testing.assert_array_equal(preview, np.where(binary, 255, 0))


@pytest.mark.parametrize("shape", [(1, 1), (513, 7), (300, 20_000)])  # the last: two strips
def test_rasters_of_any_size_are_read_back(tmp_path: Path, shape: tuple[int, int]) -> None:
    path, georeference = tmp_path / "map.tif", Georeference(crs(32632), TRANSFORM)
    values = RNG.random(shape, dtype=np.float32)
    raw = RawRaster(tmp_path / "map.raw", shape)
    raw.create()
    raw.write(Window(0, 0, shape[1], shape[0]), values)
    write_raster(path, raw, georeference, TAGS)
    raw.path.unlink()
    np.testing.assert_array_equal(whole(ScoreMap(path)), values)
    write_raster(tmp_path / "copy.tif", ScoreMap(path), georeference, TAGS)
    np.testing.assert_array_equal(whole(ScoreMap(tmp_path / "copy.tif")), values)
    write_preview(tmp_path / "preview.png", MemoryRaster(values > 0.5))
    preview = cv2.imread(str(tmp_path / "preview.png"), cv2.IMREAD_UNCHANGED)
    assert preview is not None
    assert preview.dtype == np.uint8
    np.testing.assert_array_equal(preview, np.where(values > 0.5, 255, 0))
    assert {file.name for file in tmp_path.iterdir()} == {"map.tif", "copy.tif", "preview.png"}


def test_a_temporary_file_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    path, left = tmp_path / "map.tif", tmp_path / ".map.part.tif"
    write_raster(path, RNG.random((700, 700), dtype=np.float32), NOWHERE)
    path.rename(left)
    os.truncate(left, left.stat().st_size // 2)
    write_raster(path, MAP, NOWHERE)
    np.testing.assert_array_equal(whole(ScoreMap(path)), MAP)
    assert list(tmp_path.iterdir()) == [path]


def test_no_side_file_is_left_for_a_crs_that_a_geotiff_cannot_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rotated_pole = osr.SpatialReference()
    rotated_pole.SetFromUserInput("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18")
    write_raster(tmp_path / "map.tif", MAP, Georeference(rotated_pole, TRANSFORM))
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]
    assert "a GeoTIFF cannot hold the CRS" in caplog.text


class ChangingRaster:
    """A raster with other pixels on each read."""

    shape = MAP.shape

    def read(self, window: Window) -> np.ndarray:
        return RNG.random((window.height, window.width), dtype=np.float32)


def test_a_file_that_fails_verification_is_removed(tmp_path: Path) -> None:
    message = refusal(tmp_path / "map.tif", lambda path: write_raster(path, ChangingRaster(), NOWHERE))
    assert message.endswith("cannot be written (verification after writing failed)")
    assert not list(tmp_path.iterdir())


def test_a_damaged_source_is_an_error_that_names_it(tmp_path: Path) -> None:
    source = tmp_path / "source.tif"
    write_raster(source, RNG.random((700, 700), dtype=np.float32), NOWHERE)
    os.truncate(source, source.stat().st_size // 2)
    assert "damaged or cut off" in refusal(
        source, lambda path: write_raster(tmp_path / "map.tif", ScoreMap(path), NOWHERE)
    )
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("values", [MAP.astype(np.float64), RGB[..., 0], np.dstack([MAP, MAP])])
def test_other_rasters_are_refused_as_maps(tmp_path: Path, values: np.ndarray) -> None:
    assert "not a single-band float32 map" in refusal(write_tiff(tmp_path / "map.tif", values), ScoreMap)


def test_a_missing_map_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "map.tif", ScoreMap)


# --- Cloud-optimized GeoTIFF -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(64, 64), (700, 900), (1500, 300)])
@pytest.mark.parametrize("gap", [False, True])
def test_maps_are_cloud_optimized(tmp_path: Path, shape: tuple[int, int], gap: bool) -> None:
    path, values = tmp_path / "map.tif", RNG.random(shape, dtype=np.float32)
    if gap:
        values[10:30, 5:50] = np.nan
    write_raster(path, values, Georeference(crs(32632), TRANSFORM), TAGS, ["anomaly score, 0 to 2"])
    warnings, errors, _ = validate(str(path), full_check=True)
    assert (warnings, errors) == ([], [])
    np.testing.assert_array_equal(whole(ScoreMap(path)), values)
    dataset = gdal.Open(str(path))
    band = dataset.GetRasterBand(1)
    assert np.isnan(band.GetNoDataValue())
    assert band.GetDescription() == "anomaly score, 0 to 2"
    assert dataset.GetMetadata("IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
    assert "PREDICTOR" not in dataset.GetMetadata("IMAGE_STRUCTURE")
    np.testing.assert_array_equal(band.ReadAsArray(), np.nan_to_num(values))  # 0, not NaN, for pixels without data
    assert band.GetMaskFlags() == (gdal.GMF_PER_DATASET if gap else gdal.GMF_NODATA)
    np.testing.assert_array_equal(band.GetMaskBand().ReadAsArray() == 0, np.isnan(values))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bands", [2, 3, 4, 9])
@pytest.mark.parametrize("gap", [False, True])
def test_maps_of_several_bands_are_cloud_optimized(tmp_path: Path, bands: int, gap: bool) -> None:
    path, values = tmp_path / "map.tif", RNG.random((300, 2000, bands), dtype=np.float32)
    if gap:
        values[10:30, 5:50] = np.nan
    names = [f"band {number}" for number in range(bands)]
    write_raster(path, values, Georeference(crs(32632), TRANSFORM), TAGS, names)
    warnings, errors, _ = validate(str(path), full_check=True)
    assert (warnings, errors) == ([], [])
    dataset = gdal.Open(str(path))
    assert [dataset.GetRasterBand(number + 1).GetDescription() for number in range(bands)] == names
    np.testing.assert_array_equal(dataset.ReadAsArray().transpose(1, 2, 0), np.nan_to_num(values))
    mask = dataset.GetRasterBand(bands).GetMaskBand().ReadAsArray()
    np.testing.assert_array_equal(mask == 0, np.isnan(values[..., 0]))
    assert dataset.GetRasterBand(1).GetColorInterpretation() != gdal.GCI_RedBand


def test_overviews_are_averages_of_the_pixels_with_data(tmp_path: Path) -> None:
    values = np.zeros((600, 600), np.float32)
    values[:2, :4] = [[0.2, 0.4, np.nan, 0.3], [0.6, 0.8, np.nan, np.nan]]
    write_raster(tmp_path / "map.tif", values, NOWHERE)
    dataset = gdal.Open(str(tmp_path / "map.tif"))
    overview = dataset.GetRasterBand(1).GetOverview(0)
    assert (overview.XSize, overview.YSize) == (300, 300)
    np.testing.assert_allclose(overview.ReadAsArray(0, 0, 3, 1), [[0.5, 0.3, 0]], rtol=1e-6)


def test_overviews_of_labels_contain_only_label_values(tmp_path: Path) -> None:
    write_raster(tmp_path / "label.tif", RNG.choice(np.array([0, 7], np.uint8), (600, 600)), NOWHERE)
    dataset = gdal.Open(str(tmp_path / "label.tif"))
    overview = dataset.GetRasterBand(1).GetOverview(0)
    assert set(np.unique(overview.ReadAsArray())) == {0, 7}


def test_a_map_records_its_provenance(tmp_path: Path) -> None:
    write_raster(tmp_path / "map.tif", MAP, NOWHERE, TAGS)
    items = gdal.Open(str(tmp_path / "map.tif")).GetMetadata()
    assert items["ANOMALYCD_VERSION"] == config.VERSION
    assert items["ANOMALYCD_CHECKPOINT"] == "sam.pth"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", items["ANOMALYCD_COMMIT"])
    age = datetime.now(timezone.utc) - datetime.fromisoformat(items["ANOMALYCD_TIME"])
    assert 0 <= age.total_seconds() < 3600


def test_all_georeference_is_kept(tmp_path: Path) -> None:
    points = tuple(gdal.GCP(500_000 + x, 4_200_000 - y, 0, x, y) for x in (0, 30) for y in (0, 40))
    rpcs = dict.fromkeys(("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF"), "0")
    rpcs |= dict.fromkeys(("LINE_SCALE", "SAMP_SCALE", "LAT_SCALE", "LONG_SCALE", "HEIGHT_SCALE"), "1")
    for kind in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN"):
        rpcs[f"{kind}_COEFF"] = " ".join(["1", *["0"] * 19])
    place = Georeference(None, None, points, crs(32632), tuple(sorted(rpcs.items())), "Area")
    write_raster(tmp_path / "map.tif", MAP, place, TAGS)
    found = ScoreMap(tmp_path / "map.tif").georeference
    assert found.transform is None
    assert [(p.GCPX, p.GCPY, p.GCPPixel, p.GCPLine) for p in found.gcps] == [
        (p.GCPX, p.GCPY, p.GCPPixel, p.GCPLine) for p in points
    ]
    assert found.gcp_spatial_reference is not None
    assert found.gcp_spatial_reference.IsSame(crs(32632))
    kept = dict(found.rpcs)
    assert {name: [float(number) for number in kept[name].split()] for name in rpcs} == {
        name: [float(number) for number in value.split()] for name, value in rpcs.items()
    }


@pytest.mark.parametrize("kind", ["Area", "Point"])
def test_georeference_is_the_same_for_areas_and_points(tmp_path: Path, kind: str) -> None:
    write_raster(tmp_path / "map.tif", MAP, Georeference(crs(32632), TRANSFORM, area_or_point=kind))
    found = ScoreMap(tmp_path / "map.tif").georeference
    assert found.transform == TRANSFORM
    assert found.area_or_point == kind
    points = tuple(gdal.GCP(500_000 + x, 4_200_000 - y, 0, x, y) for x in (0, 30) for y in (0, 40))
    write_raster(tmp_path / "map.tif", MAP, Georeference(None, None, points, crs(32632), area_or_point=kind))
    found = ScoreMap(tmp_path / "map.tif").georeference
    assert [(p.GCPPixel, p.GCPLine) for p in found.gcps] == [(x, y) for x in (0, 30) for y in (0, 40)]


def test_a_crs_without_epsg_code_is_kept(tmp_path: Path) -> None:
    custom = osr.SpatialReference()
    custom.ImportFromProj4("+proj=tmerc +lat_0=47.3 +lon_0=8.5 +k=0.99987 +x_0=1234 +y_0=5678 +ellps=bessel +units=m")
    write_raster(tmp_path / "map.tif", MAP, Georeference(custom, TRANSFORM))
    found = ScoreMap(tmp_path / "map.tif").georeference.spatial_reference
    assert found is not None
    assert found.IsSame(custom)


# --- Current maps ----------------------------------------------------------------------------------------------------
def test_a_missing_map_is_not_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert map_state(tmp_path / "map.tif", MAP.shape, PARAMETERS) is MapState.OUTDATED
    assert not caplog.messages


def test_a_map_of_the_same_parameters_is_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_raster(tmp_path / "map.tif", MAP, NOWHERE, TAGS)
    assert map_state(tmp_path / "map.tif", MAP.shape, PARAMETERS) is MapState.CURRENT
    assert not caplog.messages


def test_a_map_without_parameters_is_foreign_if_its_size_fits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tiff(tmp_path / "map.tif", MAP)
    assert map_state(path, MAP.shape, PARAMETERS) is MapState.FOREIGN
    assert not caplog.messages
    assert map_state(path, (40, 31), PARAMETERS) is MapState.OUTDATED
    assert caplog.messages == [f"{path}: its size differs from the images'; recomputing it"]


def test_a_truncated_map_without_parameters_is_outdated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tiff(tmp_path / "map.tif", MAP)
    os.truncate(path, path.stat().st_size // 2)
    assert map_state(path, MAP.shape, PARAMETERS) is MapState.OUTDATED
    assert caplog.messages[0].endswith("recomputing it")


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
    write_raster(path, MAP, NOWHERE, TAGS)
    assert map_state(path, MAP.shape, parameters) is MapState.OUTDATED
    assert caplog.messages == [f"{path}: was computed with different {changed}; recomputing it"]


def test_a_map_of_another_size_is_not_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_raster(tmp_path / "map.tif", MAP, NOWHERE, TAGS)
    assert map_state(tmp_path / "map.tif", (40, 31), PARAMETERS) is MapState.OUTDATED
    assert "its size differs from the images'; recomputing it" in caplog.messages[0]


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_map_is_not_current(tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float) -> None:
    path = tmp_path / "map.tif"
    write_raster(path, MAP, NOWHERE, TAGS)
    os.truncate(path, int(path.stat().st_size * share))
    assert map_state(path, MAP.shape, PARAMETERS) is MapState.OUTDATED
    (warning,) = caplog.messages
    assert str(path) in warning
    assert warning.endswith("recomputing it")


def test_a_map_with_damaged_parameters_is_not_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "map.tif"
    write_raster(path, MAP, NOWHERE)
    gdal.OpenEx(str(path), gdal.OF_UPDATE).SetMetadataItem(PARAMETERS_TAG, "{")
    assert map_state(path, MAP.shape, PARAMETERS) is MapState.OUTDATED
    assert "is damaged; remove the file; recomputing it" in caplog.text


def test_an_rgb_image_is_not_a_current_map(tmp_path: Path) -> None:
    assert map_state(write_tiff(tmp_path / "map.tif", RGB), (40, 30), PARAMETERS) is MapState.OUTDATED


# --- Maps by name ----------------------------------------------------------------------------------------------------
def test_a_map_is_found_by_its_exact_name_first(tmp_path: Path) -> None:
    for name in ("AnomalyCD_map.tif", "AnomalyCD_map_1.tif", "AnomalyCD_map_2.tif"):
        (tmp_path / name).touch()
    assert find_map(tmp_path / "AnomalyCD_map.tif") == tmp_path / "AnomalyCD_map.tif"


@pytest.mark.parametrize("name", ["AnomalyCD_map_4_fire.tif", "AnomalyCD_map-20200630.tif", "AnomalyCD_map2.tif"])
def test_the_only_map_with_an_addition_to_its_name_is_found(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "1_[event]*"
    folder.mkdir()
    others = ("AnomalyCD_map.png", "AnomalyCD_map_4_fire.png", "AnomalyCD_map.tif.aux.xml", "AnomalyCD_regions.gpkg")
    for other in (*others, f".{name}", ".AnomalyCD_map.part.tif", "AnomalyCD_map.tif.part"):
        (folder / other).touch()
    (folder / "AnomalyCD_map_folder.tif").mkdir()
    assert find_map(folder / "AnomalyCD_map.tif") == folder / "AnomalyCD_map.tif"  # none is a map
    (folder / name).touch()
    assert find_map(folder / "AnomalyCD_map.tif") == folder / name


def test_a_missing_folder_has_no_map(tmp_path: Path) -> None:
    assert find_map(tmp_path / "nowhere" / "map.tif") == tmp_path / "nowhere" / "map.tif"


def test_several_maps_are_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("map_b.tif", "map_a.tif"):
        (tmp_path / name).touch()
    with pytest.raises(EventError) as refused:
        find_map(tmp_path / "map.tif")
    message = f"{tmp_path}: several files may be map.tif: map_a.tif, map_b.tif; rename the right one to map.tif"
    assert str(refused.value) == message


# --- Full disks ------------------------------------------------------------------------------------------------------
MEBIBYTE = 1 << 20
NOISE = "np.random.default_rng(0).random((700, 700), np.float32)"  # 2 MB that do not compress
WRITE_WITH_LITTLE_ROOM = f"""
import resource, sys
from pathlib import Path
import numpy as np
from rasters.geotiff import Georeference
from rasters.cog import write_raster
from rasters.maps import map_tags
from rasters.png import write_preview
from rasters.raster import MemoryRaster
from utils import EventError

values, path = {NOISE}, Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    if path.suffix == ".tif":
        write_raster(path, values, Georeference(None, None), map_tags({{"patch_size": 2048}}, ""))
    else:
        write_preview(path, MemoryRaster(values > 0.5))
except EventError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "room"), [*(("map.tif", room) for room in (0, 100, 5000, MEBIBYTE)), ("map.png", 0), ("map.png", 5000)]
)
def test_a_file_that_exceeds_the_size_limit_is_removed(tmp_path: Path, name: str, room: int) -> None:
    path = tmp_path / name
    done = run_process("-c", WRITE_WITH_LITTLE_ROOM, path, room)
    assert done.stdout.splitlines() == [f"{path}: cannot be written (File too large)"]
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_existing_map(small_disk: Path) -> None:
    path = small_disk / "map.tif"
    write_raster(path, MAP, NOWHERE, TAGS)
    large = RNG.random((700, 700), dtype=np.float32)
    with pytest.raises(EventError, match="No space left"):
        write_raster(path, large, NOWHERE, TAGS)
    assert list(small_disk.iterdir()) == [path]
    np.testing.assert_array_equal(whole(ScoreMap(path)), MAP)


def test_an_incomplete_preview_on_a_full_disk_is_removed(small_disk: Path) -> None:
    with pytest.raises(EventError, match="No space left"):
        write_preview(small_disk / "preview.png", MemoryRaster(RNG.random((4000, 4000)) > 0.5))
    assert not list(small_disk.iterdir())


# --- Memory ----------------------------------------------------------------------------------------------------------
POST_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from eval_metrics import binarize_anomaly_map, binarize_by_quantile, score_binary_map
from rasters.geotiff import Georeference
from rasters.cog import write_raster
from rasters.maps import MapState, ScoreMap, map_state, map_tags
from rasters.png import write_preview
from rasters.raster import RawRaster
from utils import Window

folder, shape = Path(sys.argv[1]), (int(sys.argv[2]), 8000)
raw = RawRaster(folder / "map.raw", shape)
raw.create()
raw.write(Window(0, 0, 600, 600), np.ones((600, 600), np.float32))
write_raster(folder / "map.tif", raw, Georeference(None, None), map_tags({}, ""))
assert map_state(folder / "map.tif", shape, {}) is MapState.CURRENT
changes = ScoreMap(folder / "map.tif")
changed = binarize_by_quantile(changes, 0.7)
anomalous = binarize_anomaly_map(changes, 0.08, 0.0003, 512, 3, normalize=True)
write_preview(folder / "map.png", anomalous)
assert score_binary_map(changed, changes, anomalous, 0.1).recall == 0  # its label values are 0 and 1
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def test_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    peaks = []  # KiB
    for height in (2000, 7000):  # 61 and 214 MiB
        # One arena: with several, the peak depends on how much freed memory each thread's arena keeps.
        done = run_process("-c", POST_PROCESS, tmp_path, height, MALLOC_ARENA_MAX="1")
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 32 << 10, peaks
