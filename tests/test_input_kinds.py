"""Runs of the scripts on every kind of image named in docs/data.md: supported kinds are finished, others refused."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, osr

import config
from demo.scenes import make_event
from rasters.maps import ScoreMap
from tests.helpers import whole
from tests.scripts import DEMO_SAM, FEW_POINTS, run_process
from tests.tiffs import TRANSFORM, crs, write_tiff

SIDE = 256
SCENE = make_event(4, 4, SIDE, 2)
GAP = (slice(0, 40), slice(0, 60))  # rows and columns without data
Writer = Callable[[Path, np.ndarray], object]


def place(dataset: gdal.Dataset, transform: tuple[float, ...] = TRANSFORM, code: int = 32632) -> None:
    dataset.SetGeoTransform(transform)
    dataset.SetSpatialRef(crs(code))


def plain(path: Path, values: np.ndarray, *options: str) -> Path:
    return write_tiff(path, values, *options, change=place)


def stored(*options: str) -> Writer:
    return lambda path, rgb: plain(path, rgb, *options)


def cog(path: Path, rgb: np.ndarray) -> None:
    source = gdal.Open(str(plain(path.with_suffix(".source"), rgb)))
    gdal.GetDriverByName("COG").CreateCopy(str(path), source, options=["BLOCKSIZE=128", "COMPRESS=DEFLATE"])


def with_overviews(path: Path, rgb: np.ndarray) -> None:
    gdal.OpenEx(str(plain(path, rgb)), gdal.OF_UPDATE).BuildOverviews("AVERAGE", [2, 4])


def with_stale_overviews(path: Path, rgb: np.ndarray) -> None:
    gdal.Open(str(plain(path, rgb // 2))).BuildOverviews("AVERAGE", [2, 4])
    path.unlink()
    plain(path, rgb)


def rotated(path: Path, rgb: np.ndarray) -> None:
    write_tiff(path, rgb, change=lambda dataset: place(dataset, (5e5, 0.4, 0.1, 42e5, 0.1, -0.4)))


def control_points(path: Path, rgb: np.ndarray) -> None:
    points = [gdal.GCP(500_000 + 0.5 * x, 4_200_000 - 0.5 * y, 0, x, y) for x in (0, SIDE) for y in (0, SIDE)]
    write_tiff(path, rgb, change=lambda dataset: dataset.SetGCPs(points, crs(32632)))


def local_crs(path: Path, rgb: np.ndarray) -> None:
    def change(dataset: gdal.Dataset) -> None:
        reference = osr.SpatialReference()
        reference.ImportFromWkt('LOCAL_CS["quarry grid",UNIT["metre",1]]')
        dataset.SetSpatialRef(reference)
        dataset.SetGeoTransform(TRANSFORM)

    write_tiff(path, rgb, change=change)


def more_bands(*more: np.ndarray | int, alpha: bool) -> Writer:
    def write(path: Path, rgb: np.ndarray) -> None:
        extra = [np.broadcast_to(np.uint8(band) if isinstance(band, int) else band, (SIDE, SIDE)) for band in more]
        plain(path, np.dstack([rgb, *extra]), f"ALPHA={'YES' if alpha else 'NO'}")

    return write


def scaled_to(kind: type[np.generic], factor: float) -> Writer:
    return lambda path, rgb: plain(path, (rgb.astype(float) * factor).astype(kind))


def palette(path: Path, rgb: np.ndarray) -> None:
    def change(dataset: gdal.Dataset) -> None:
        colors = gdal.ColorTable()
        for index in range(256):
            colors.SetColorEntry(index, (index, index, index))
        dataset.GetRasterBand(1).SetColorTable(colors)
        place(dataset)

    write_tiff(path, rgb[..., 0], change=change)


def with_gap(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values[GAP] = value
    return values


def nodata_value(path: Path, rgb: np.ndarray) -> None:
    write_tiff(path, with_gap(rgb, 0), nodata=0, change=place)


def mask_band(path: Path, rgb: np.ndarray) -> None:
    def change(dataset: gdal.Dataset) -> None:
        place(dataset)
        dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
        dataset.GetRasterBand(1).GetMaskBand().WriteArray(with_gap(np.full((SIDE, SIDE), 255, np.uint8), 0))

    write_tiff(path, rgb, change=change)


def alpha_band(path: Path, rgb: np.ndarray) -> None:
    opacity = with_gap(np.full((SIDE, SIDE), 255, np.uint8), 0)
    plain(path, np.dstack([rgb, opacity]), "ALPHA=YES")


def not_a_number(path: Path, rgb: np.ndarray) -> None:
    plain(path, with_gap(rgb.astype(np.float32) / 255, np.nan))


def only_for(chosen: str, write: Writer) -> Writer:
    """Write the chosen date with `write`, and the others plain."""
    return lambda path, rgb: write(path, rgb) if path.stem == chosen else plain(path, rgb)


def moved(path: Path, rgb: np.ndarray) -> None:
    write_tiff(path, rgb, change=lambda dataset: place(dataset, (500_010, 0.5, 0, 4_200_000, 0, -0.5)))


def other_crs(path: Path, rgb: np.ndarray) -> None:
    write_tiff(path, rgb, change=lambda dataset: place(dataset, code=32633))


def unplaced(path: Path, rgb: np.ndarray) -> None:
    write_tiff(path, rgb)


def smaller_and_unplaced(path: Path, rgb: np.ndarray) -> None:
    write_tiff(path, rgb[:200])


def disguised_vrt(path: Path, rgb: np.ndarray) -> None:
    source = gdal.Open(str(plain(path.with_suffix(".source"), rgb)))
    gdal.GetDriverByName("VRT").CreateCopy(str(path), source)


def network_path(path: Path, rgb: np.ndarray) -> None:
    path.write_text("/vsicurl/http://127.0.0.1:9/image.tif")


def cut_off(path: Path, rgb: np.ndarray) -> None:
    plain(path, rgb)
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path, rgb: np.ndarray) -> None:
    path.touch()


def folder(path: Path, rgb: np.ndarray) -> None:
    path.mkdir()


def terabyte(path: Path, rgb: np.ndarray) -> None:
    options = ["SPARSE_OK=YES", "TILED=YES", "BIGTIFF=YES"]
    gdal.GetDriverByName("GTiff").Create(str(path), 600_000, 600_000, 3, gdal.GDT_Byte, options)


MONITOR, OLDEST = "anomaly_20210720", "normal_20180614"
# Kinds whose maps equal those of a plain 8-bit RGB event, bit for bit.
SAME: dict[str, Writer] = {
    "tiled": stored("TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=64"),
    "LZW": stored("COMPRESS=LZW", "PREDICTOR=2"),
    "DEFLATE": stored("COMPRESS=DEFLATE"),
    "ZSTD": stored("COMPRESS=ZSTD"),
    "band by band": stored("INTERLEAVE=BAND"),
    "BigTIFF": stored("BIGTIFF=YES"),
    "big-endian": stored("ENDIANNESS=BIG"),
    "COG": cog,
    "overviews": with_overviews,
    "stale .ovr": with_stale_overviews,
    "rotated": rotated,
    "GCPs": control_points,
    "local CRS": local_crs,
    "no place": unplaced,
    "one date without place": only_for(OLDEST, unplaced),
    "RGBA": more_bands(255, alpha=True),
    "RGB and NIR": more_bands(77, alpha=False),
    "nodata value that no pixel has": lambda path, rgb: write_tiff(path, rgb, nodata=0, change=place),
}
# Supported kinds whose maps differ from those of a plain event.
FINISHED: dict[str, Writer] = {
    "JPEG": stored("COMPRESS=JPEG", "PHOTOMETRIC=YCBCR", "TILED=YES"),
    "16 bits": scaled_to(np.uint16, 40),
    "16 bits signed": scaled_to(np.int16, 40),
    "32 bits": scaled_to(np.uint32, 4000),
    "32 bits signed": scaled_to(np.int32, 4000),
    "float32": scaled_to(np.float32, 1 / 255),
    "float64": scaled_to(np.float64, 1 / 255),
    "one band": lambda path, rgb: plain(path, rgb[..., 0]),
    "palette": palette,
    "nodata value": nodata_value,
    "mask band": mask_band,
    "alpha": alpha_band,
    "NaN": not_a_number,
    "gap in one date": only_for(OLDEST, nodata_value),
    "other grid": only_for(OLDEST, moved),
    "64 x 64": lambda path, rgb: plain(path, rgb[:64, :64]),
}
REFUSED: dict[str, tuple[Writer, str]] = {
    "two bands": (lambda path, rgb: plain(path, rgb[..., :2]), "2 bands; name those"),
    "six bands": (more_bands(1, 2, 3, alpha=False), "6 bands; name those"),
    "complex": (lambda path, rgb: plain(path, rgb.astype(np.complex64)), "CFloat32 pixels; only integers"),
    "mixed types": (only_for(OLDEST, scaled_to(np.uint16, 40)), "3 band(s) of uint8 and 3 band(s) of uint16"),
    "mixed bands": (only_for(OLDEST, lambda path, rgb: plain(path, rgb[..., 0])), "1 band(s) of uint8"),
    "other CRS": (only_for(OLDEST, other_crs), "CRSs differ (256 x 256 in WGS 84 / UTM zone 32N and"),
    "other size": (only_for(OLDEST, smaller_and_unplaced), "256 x 200 in no CRS"),
    "63 pixels": (lambda path, rgb: plain(path, rgb[:63]), "at least 64 per side needed"),
    "VRT": (only_for(MONITOR, disguised_vrt), "cannot be opened as a GeoTIFF"),
    "network path": (only_for(MONITOR, network_path), "cannot be opened as a GeoTIFF"),
    "cut off": (only_for(MONITOR, cut_off), "damaged or cut off"),
    "empty file": (only_for(MONITOR, empty), "cannot be opened as a GeoTIFF"),
    "folder": (only_for(MONITOR, folder), "needs one monitor image"),
    "terabyte": (only_for(MONITOR, terabyte), "at most 100000 per side"),
}


def write_event(root: Path, name: str, write: Writer) -> Path:
    place_of_event = root / f"4_{name}"
    place_of_event.mkdir(parents=True)
    for stem, values in zip((OLDEST, "normal_20181002", MONITOR), (*SCENE.historical, SCENE.monitor), strict=True):
        write(place_of_event / f"{stem}.tif", np.maximum(values, 1))  # 0 is reserved for nodata
    return place_of_event


class Run:
    """A run over events of all kinds: its maps and messages."""

    def __init__(self, root: Path, kinds: dict[str, Writer], *flags: object) -> None:
        for name, write in kinds.items():
            write_event(root / "data", name, write)
        roots = ("--data-root", root / "data", "--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
        self.root = root
        self.done = run_process("run.py", *roots, *DEMO_SAM, *flags, **FEW_POINTS)

    def maps(self, name: str) -> list[np.ndarray]:
        stage1, stage2 = (self.root / stage / f"4_{name}" for stage in ("stage1", "stage2"))
        paths = (stage1 / config.CHANGE_MAP_NAME, stage2 / config.FILTERED_MAP_NAME, stage2 / config.ANOMALY_MAP_NAME)
        return [whole(ScoreMap(path)) for path in paths]

    def reason(self, name: str) -> str:
        lines = self.done.stderr.splitlines()
        (line,) = [line for line in lines if line.startswith((f"error: 4_{name}: ", f"  skipped 4_{name}: "))]
        return line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    refused = {name: write for name, (write, _) in REFUSED.items()}
    return Run(tmp_path_factory.mktemp("kinds"), {"plain": plain, **SAME, **FINISHED, **refused})


def test_refused_events_do_not_stop_the_others(run: Run) -> None:
    assert run.done.returncode == 1, run.done.stderr
    assert "Traceback" not in run.done.stderr
    finished = 1 + len(SAME) + len(FINISHED)
    assert f"both stages: {finished} done, 1 skipped, {len(REFUSED) - 1} failed" in run.done.stderr


@pytest.mark.parametrize("name", SAME)
def test_maps_equal_those_of_plain_images(run: Run, name: str) -> None:
    for found, expected in zip(run.maps(name), run.maps("plain"), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", FINISHED)
def test_supported_kinds_are_finished(run: Run, name: str) -> None:
    changes, filtered, anomalies = run.maps(name)
    assert np.nanmax(changes) > 0 or name == "64 x 64"  # too small for a mask of 3000 pixels
    np.testing.assert_array_equal(np.isnan(filtered), np.isnan(anomalies))


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_kinds_are_refused_with_a_reason(run: Run, name: str) -> None:
    assert REFUSED[name][1] in run.reason(name)


@pytest.mark.parametrize("name", ["nodata value", "mask band", "alpha", "NaN"])
def test_gaps_are_nan_in_all_maps(run: Run, name: str) -> None:
    for found in run.maps(name):
        assert np.isnan(found[GAP]).all()
        assert np.isnan(found).sum() == 40 * 60


def test_maps_do_not_depend_on_how_gaps_are_marked(run: Run) -> None:
    for other in ("mask band", "alpha"):
        for found, expected in zip(run.maps(other), run.maps("nodata value"), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_gap_in_an_older_date_leaves_no_gap_in_the_maps(run: Run) -> None:
    for found in run.maps("gap in one date"):
        assert not np.isnan(found).any()
    np.testing.assert_array_equal(run.maps("gap in one date")[1], run.maps("plain")[1])


def test_a_date_on_another_grid_leaves_no_gap_outside_its_extent(run: Run) -> None:
    for found in run.maps("other grid"):  # 20 pixels further east
        assert not np.isnan(found).any()
    assert run.done.stderr.count("resampled to the grid of") == 1


def test_bands_flag_selects_the_bands(tmp_path: Path) -> None:
    def backwards(path: Path, rgb: np.ndarray) -> None:
        plain(path, np.dstack([rgb[..., ::-1], rgb[..., :1], rgb[..., :1], rgb[..., :1]]))

    run = Run(tmp_path, {"backwards": backwards}, "--bands", "3,2,1")
    assert run.done.returncode == 0, run.done.stderr
    straight = Run(tmp_path / "straight", {"plain": plain})
    for found, expected in zip(run.maps("backwards"), straight.maps("plain"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_16_bit_images_without_stretch_equal_8_bit_ones(tmp_path: Path) -> None:
    kinds: dict[str, Writer] = {"deep": lambda path, rgb: plain(path, rgb.astype(np.uint16)), "plain": plain}
    run = Run(tmp_path, kinds, "--stretch", "none")
    assert run.done.returncode == 0, run.done.stderr
    for found, expected in zip(run.maps("deep"), run.maps("plain"), strict=True):
        np.testing.assert_array_equal(found, expected)
