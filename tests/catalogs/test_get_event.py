"""Events from real servers on this machine: a static catalog over HTTP with byte ranges, and a STAC API."""

import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from osgeo import gdal

import config
from catalogs.remote import Asset, open_image, remote_files
from catalogs.sources import SOURCES
from demo.scenes import SyntheticEvent, make_event
from img_io import open_event, read_window
from rasters.cog import write_raster
from rasters.image_file import ImageFile
from tests.catalogs.made import (
    ORIGIN,
    PIXEL,
    footprint,
    lonlat_box,
    make_collection,
    make_item,
    write_cog,
    write_json,
    write_static_catalog,
)
from tests.catalogs.servers import FileServer, api_server, file_server, rustac
from tests.scripts import DEMO_SAM, run_process
from utils import Window, read_event

FAST = {"ANOMALYCD_CATALOG_PAUSE": "0", "ANOMALYCD_CATALOG_ATTEMPTS": "3"}
DATES = ("2020-06-14", "2020-10-02", "2021-03-11", "2021-06-20")
MONITOR = "2021-07-20"
SIDE = 256
needs_api = pytest.mark.skipif(rustac() is None, reason="needs rustac, which needs Python 3.11")


def box_arguments(size: int = SIDE, corner: tuple[float, float] = ORIGIN, inset: float = 2.0) -> list[str]:
    """`--bbox` of a place of `size` pixels, a little inside of it."""
    return ["--bbox", *map(repr, lonlat_box(corner, size * PIXEL, size * PIXEL, inset=inset))]


def get_event(*arguments: object, stac: str, name: str = "3_place", data_root: Path, code: int = 0) -> str:
    """Run the script; returns its stderr and stdout."""
    common = ("--name", name, "--date", "2021-07-01", "--stac", stac, "--data-root", data_root)
    done = run_process("get_event.py", *common, *arguments, **FAST)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr + done.stdout


@pytest.fixture(scope="module")
def scene() -> SyntheticEvent:
    return make_event(13, 3, SIDE, len(DATES))


def images_of(scene: SyntheticEvent) -> dict[str, np.ndarray]:
    return dict(zip((*DATES, MONITOR), (*scene.historical, scene.monitor), strict=True))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """An empty folder that is served over HTTP."""
    with file_server(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(scope="module")
def static(server: FileServer, scene: SyntheticEvent) -> str:
    """A static catalog of one image per date."""
    items = []
    for day, image in images_of(scene).items():
        write_cog(server.folder / "static" / f"{day}.tif", image)
        size = SIDE * PIXEL
        items.append(make_item(f"P/{day}", f"{day}T10:00:00Z", {"visual": f"../../{day}.tif"}, width=size, height=size))
    write_static_catalog(server.folder / "static", items)
    return f"{server.url}/static/catalog.json"


def pixels_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All pixels of a written image, (H, W, 3), and which of them hold data."""
    file = ImageFile(path)
    values, valid = file.read(Window(0, 0, file.shape[1], file.shape[0]))
    return values, np.ones(file.shape, bool) if valid is None else valid


def place_of(path: Path, pixel: float = PIXEL) -> tuple[int, int]:
    """Columns and rows between ORIGIN and the corner of a written image."""
    x, xx, _, y, _, yy = ImageFile(path).georeference.transform or ()
    assert (xx, yy) == (pixel, -pixel)
    return round((x - ORIGIN[0]) / pixel), round((ORIGIN[1] - y) / pixel)


def test_pixels_on_the_monitor_images_grid_are_kept(static: str, scene: SyntheticEvent, tmp_path: Path) -> None:
    get_event(*box_arguments(), stac=static, data_root=tmp_path)
    event = read_event(tmp_path / "3_place")
    assert [path.name for path in event.historical] == [f"normal_{day.replace('-', '')}.tif" for day in DATES]
    images = [*event.historical, event.monitor]
    for path, original in zip(images, images_of(scene).values(), strict=True):
        values, valid = pixels_of(path)
        left, top = place_of(path)
        assert valid.all()
        assert np.array_equal(values, original[top : top + values.shape[0], left : left + values.shape[1]])
        assert gdal.Open(str(path)).GetMetadataItem("LAYOUT", "IMAGE_STRUCTURE") == "COG"


def test_the_record_and_the_tags_name_the_origin(static: str, tmp_path: Path) -> None:
    get_event(*box_arguments(), stac=static, data_root=tmp_path)
    record = json.loads((tmp_path / "3_place" / "event.json").read_text(encoding="utf-8"))
    assert record["licence"] == "CC-BY-4.0"
    assert record["query"]["date"] == "2021-07-01"
    assert [image["role"] for image in record["images"]] == [
        *["historical image"] * 3,
        "reference image",
        "monitor image",
    ]
    assert record["images"][-1]["items"][0]["id"] == f"P/{MONITOR}"
    tags = gdal.Open(str(tmp_path / "3_place" / record["images"][-1]["file"])).GetMetadata()
    assert tags["ANOMALYCD_ITEMS"] == f"P/{MONITOR}"
    assert tags["ANOMALYCD_CATALOG"] == static
    assert tags["ANOMALYCD_LICENCE"] == "CC-BY-4.0"
    assert tags["ANOMALYCD_ASSETS"].endswith(f"/static/{MONITOR}.tif")


def test_a_dry_run_prints_the_choice_and_the_stored_size_and_writes_nothing(
    static: str, server: FileServer, tmp_path: Path
) -> None:
    printed = get_event(*box_arguments(), "--dry-run", "--dates", "2", stac=static, data_root=tmp_path / "none")
    assert "4 dates before the event, 1 on or after it" in printed
    assert printed.count("no: its season is covered") == 2
    assert "reference image" in printed
    assert "2021-07-20" in printed
    assert "3 images of" in printed
    assert not (tmp_path / "none").exists()


def test_a_dry_run_prints_the_table_also_without_a_monitor_image(static: str, tmp_path: Path) -> None:
    printed = get_event(*box_arguments(), "--dry-run", "--bands", "1,2,9", stac=static, data_root=tmp_path, code=1)
    assert "can be the monitor image" in printed
    assert len(re.findall(r"^2\d\d\d-\d\d-\d\d  sat-a .* not measured$", printed, re.M)) == len(DATES)
    assert re.search(r"^2021-07-20  sat-a .* no: .*names a band that does not exist$", printed, re.M)


def test_a_local_catalog_and_a_normal_control(server: FileServer, static: str, tmp_path: Path) -> None:
    get_event(*box_arguments(), stac=str(server.folder / "static"), name="0_place", data_root=tmp_path)
    event = read_event(tmp_path / "0_place")
    assert event.monitor.name == "normal_20210720.tif"
    assert len(event.historical) == 4


def test_the_place_of_a_geojson_file_in_another_crs(static: str, tmp_path: Path) -> None:
    shape = write_json(tmp_path / "place.geojson", footprint((ORIGIN[0] + 20, ORIGIN[1] - 20), 60, 60))
    get_event("--geojson", shape, "--crs", "EPSG:32634", "--resolution", "0.6", stac=static, data_root=tmp_path)
    file = ImageFile(tmp_path / "3_place" / "anomaly_20210720.tif")
    crs = file.georeference.spatial_reference
    assert crs is not None
    assert crs.GetAuthorityCode(None) == "32634"
    transform = file.georeference.transform or ()
    assert (transform[1], transform[5]) == (0.6, -0.6)
    assert 100 <= min(file.shape) <= max(file.shape) <= 120  # 60 m, turned by some degrees
    _, valid = pixels_of(file.path)
    assert valid.all()


def test_named_images_are_used(static: str, tmp_path: Path) -> None:
    named = ("--images", f"P/{DATES[0]}", f"P/{DATES[2]}", f"P/{MONITOR}")
    get_event(*box_arguments(), *named, stac=static, data_root=tmp_path)
    event = read_event(tmp_path / "3_place")
    assert [path.name for path in event.historical] == ["normal_20200614.tif", "normal_20210311.tif"]


def test_a_resolution_is_read_from_an_overview(server: FileServer, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    large = cv2.resize(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), (2048, 2048))
    noisy = np.clip(large + rng.normal(0, 8, large.shape), 1, 255).astype(np.uint8)
    items = []
    for day in (DATES[0], MONITOR):
        write_cog(server.folder / "large" / f"{day}.tif", noisy)
        assets = {"visual": f"../../{day}.tif"}
        items.append(make_item(day, f"{day}T10:00:00Z", assets, width=1024.0, height=1024.0))
    write_static_catalog(server.folder / "large", items)
    box = box_arguments(2048, inset=8.0)
    stac = f"{server.url}/large/catalog.json"
    get_event(*box, "--resolution", "4", stac=stac, data_root=tmp_path)
    file = server.folder / "large" / f"{MONITOR}.tif"
    assert server.sent[f"/large/{MONITOR}.tif"] < 0.1 * file.stat().st_size
    written = tmp_path / "3_place" / "anomaly_20210720.tif"
    values, _ = pixels_of(written)
    left, top = place_of(written, 4.0)
    blocks = noisy.reshape(256, 8, 256, 8, 3).mean(axis=(1, 3))
    expected = blocks[top : top + values.shape[0], left : left + values.shape[1]]
    assert min(expected.shape[:2]) > 240
    assert np.abs(values[: expected.shape[0], : expected.shape[1]] - expected).mean() < 3


def test_a_box_of_a_large_image_takes_at_most_a_twentieth_of_it(tmp_path: Path) -> None:
    block = np.random.default_rng(0).integers(60, 200, (1000, 1000, 3), dtype=np.uint8)
    options = ["COMPRESS=JPEG", "BLOCKSIZE=256", "NUM_THREADS=ALL_CPUS", "OVERVIEW_RESAMPLING=NEAREST"]
    path = write_cog(tmp_path / "image.tif", np.tile(block, (10, 10, 1)), pixel=0.3, options=options)
    del block
    items = []
    for day in (DATES[0], MONITOR):
        os.link(path, tmp_path / f"{day}.tif")
        assets = {"visual": f"../../{day}.tif"}
        items.append(make_item(day, f"{day}T10:00:00Z", assets, width=3000.0, height=3000.0))
    write_static_catalog(tmp_path, items)
    corner = (ORIGIN[0] + 1111, ORIGIN[1] - 1111)
    with file_server(tmp_path) as served:
        box = ["--bbox", *map(repr, lonlat_box(corner, 400, 400))]
        get_event(*box, stac=f"{served.url}/catalog.json", data_root=tmp_path / "out")
        for day in (DATES[0], MONITOR):
            assert served.sent[f"/{day}.tif"] <= 0.05 * path.stat().st_size
    shape = ImageFile(tmp_path / "out" / "3_place" / "anomaly_20210720.tif").shape
    assert min(shape) >= 1333


# --- A STAC API ------------------------------------------------------------------------------------------------------
def cloudy(image: np.ndarray, cloud: np.ndarray) -> np.ndarray:
    painted = image.copy()
    painted[cloud] = 250
    return painted


def halves(size: int) -> list[tuple[slice, tuple[float, float], float]]:
    """Two partial tiles of a place: columns, corner and width, which overlap."""
    middle, more = size // 2, 16
    return [
        (slice(0, middle + more), ORIGIN, (middle + more) * PIXEL),
        (slice(middle, size), (ORIGIN[0] + middle * PIXEL, ORIGIN[1]), (size - middle) * PIXEL),
    ]


def write_tiles(server: FileServer, folder: str, day: str, image: np.ndarray, classes: np.ndarray) -> list[dict]:
    """Write an image in two partial tiles with classes at half the resolution; returns their items."""
    items = []
    for number, (columns, corner, width) in enumerate(halves(image.shape[1])):
        name = f"{day}-{number}"
        write_cog(server.folder / folder / f"{name}.tif", image[:, columns], corner, nodata=0)
        write_cog(server.folder / folder / f"{name}-scl.tif", classes[::2, columns][:, ::2], corner, 2 * PIXEL)
        assets = {
            "visual": f"{server.url}/{folder}/{name}.tif",
            "scl": f"{server.url}/{folder}/{name}-scl.tif",
        }
        place = {"corner": corner, "width": width, "height": image.shape[0] * PIXEL, "eo:cloud_cover": 3.0}
        items.append(make_item(name, f"{day}T10:00:0{number}Z", assets, folder, **place))
    return items


def documents(server: FileServer, folder: str, items: Sequence[dict]) -> tuple[Path, Path]:
    """Write the collection and the items for the API."""
    box = np.array([item["bbox"] for item in items])
    around = [*box[:, :2].min(axis=0).tolist(), *box[:, 2:].max(axis=0).tolist()]
    collection = make_collection(folder, around, "CC-BY-SA-4.0")
    return (
        write_json(server.folder / f"{folder}-collection.json", collection),
        write_json(server.folder / f"{folder}-items.json", {"type": "FeatureCollection", "features": list(items)}),
    )


def f1_of(data_root: Path, root: Path) -> float:
    """F1 of stage 2 for the one event of a data root, by both scripts."""
    roots = ("--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    done = run_process("run.py", "--data-root", data_root, *roots, *DEMO_SAM)
    assert done.returncode == 0, done.stderr
    done = run_process("run_eval.py", "--data-root", data_root, "--result-root", root / "stage2")
    assert done.returncode == 0, done.stderr
    with open(root / "stage2" / config.EVAL_CSV_NAME, newline="", encoding="utf-8") as table:
        (row,) = csv.DictReader(table)
    return float(row["stage2_f1"])


@needs_api
def test_the_detour_over_an_api_finds_the_same_anomalies(server: FileServer, tmp_path: Path) -> None:
    size = 512
    scene = make_event(13, 3, size, len(DATES))
    assert scene.label is not None
    clear = np.full((size, size), 4, np.uint8)
    circle = np.zeros((size, size), np.uint8)
    cloud = cv2.circle(circle, (size // 2, size // 2), size // 3, 1, -1).astype(bool)
    items = [
        item
        for day, image in images_of(scene).items()
        for item in write_tiles(server, "detour", day, np.maximum(image, 1), clear)
    ]
    classes = np.where(cloud, np.uint8(9), clear)
    for day in ("2021-06-28", "2021-07-05"):  # closer to the event, but under clouds
        items += write_tiles(server, "detour", day, cloudy(scene.monitor, cloud), classes)
    with api_server(*documents(server, "detour", items)) as stac:
        printed = get_event(*box_arguments(size), "--collection", "detour", stac=stac, data_root=tmp_path / "got")
    assert "5 dates before the event, 2 on or after it" in printed
    event = read_event(tmp_path / "got" / "3_place")
    assert [path.name for path in event.historical] == [f"normal_{day.replace('-', '')}.tif" for day in DATES]
    assert event.monitor.name == f"anomaly_{MONITOR.replace('-', '')}.tif"
    # The same part of the drawn scenes and of the label, without the detour.
    left, top = place_of(event.monitor)
    height, width = ImageFile(event.monitor).shape
    part = (slice(top, top + height), slice(left, left + width))
    direct, place = tmp_path / "direct" / "3_place", ImageFile(event.monitor).georeference
    for path, image in zip((*event.historical, event.monitor), images_of(scene).values(), strict=True):
        write_raster(direct / path.name, image[part], place)
    for folder in (direct, event.folder):
        write_raster(folder / f"{event.monitor.stem}_label.tif", scene.label[part], place)
    got, expected = f1_of(tmp_path / "got", tmp_path / "of_got"), f1_of(direct.parent, tmp_path / "of_direct")
    assert expected > 0.5
    assert abs(got - expected) <= 0.03


@needs_api
def test_clouds_are_masked_and_filled_from_overlapping_tiles(
    server: FileServer, scene: SyntheticEvent, tmp_path: Path
) -> None:
    clear = np.full((SIDE, SIDE), 4, np.uint8)
    spot = clear.copy()
    spot[40:60, 20:60] = 8  # in the left tile only
    items = [
        item
        for day, image in images_of(scene).items()
        for item in write_tiles(server, "spots", day, np.maximum(image, 1), spot if day == DATES[1] else clear)
    ]
    with api_server(*documents(server, "spots", items)) as stac:
        printed = get_event(*box_arguments(), "--collection", "spots", stac=stac, data_root=tmp_path)
    assert "walking" not in printed
    file = tmp_path / "3_place" / "normal_20201002.tif"
    _, valid = pixels_of(file)
    left, top = place_of(file)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[40:60, 20:60] = True
    expected = expected[top : top + valid.shape[0], left : left + valid.shape[1]]
    assert np.array_equal(~valid, expected)
    _, others = pixels_of(tmp_path / "3_place" / "normal_20200614.tif")
    assert others.all()
    record = json.loads((tmp_path / "3_place" / "event.json").read_text(encoding="utf-8"))
    assert record["images"][1]["clouds_measured"]
    assert record["images"][1]["clouds"] == pytest.approx(800 / SIDE**2, rel=0.2)
    assert (
        record["images"][0]["licence" if "licence" in record["images"][0] else "items"][0]["licence"] == "CC-BY-SA-4.0"
    )


@needs_api
def test_a_tile_of_another_utm_zone_is_warped(server: FileServer, tmp_path: Path) -> None:
    smooth = cv2.resize(np.random.default_rng(5).integers(40, 220, (16, 16, 3), dtype=np.uint8), (SIDE, SIDE))
    size = SIDE * PIXEL
    items = []
    for day in (DATES[0], MONITOR):
        write_cog(server.folder / "zones" / f"{day}.tif", smooth)
        source = server.folder / "zones" / f"{day}.tif"
        asset = source
        if day == DATES[0]:
            asset = server.folder / "zones" / "other.tif"
            gdal.Warp(
                str(asset), str(source), dstSRS="EPSG:32634", xRes=PIXEL, yRes=PIXEL, dstNodata=0, resampleAlg="cubic"
            )
        assets = {"visual": f"{server.url}/zones/{asset.name}"}
        items.append(make_item(day, f"{day}T10:00:00Z", assets, "zones", width=size, height=size))
    with api_server(*documents(server, "zones", items)) as stac:
        get_event(*box_arguments(inset=6.0), "--collection", "zones", stac=stac, data_root=tmp_path)
    here, _ = pixels_of(tmp_path / "3_place" / "anomaly_20210720.tif")
    there, valid = pixels_of(tmp_path / "3_place" / "normal_20200614.tif")
    assert valid.mean() > 0.99
    assert np.abs(here.astype(int) - there)[valid].mean() < 1


@needs_api
def test_deep_images_get_the_programs_own_stretch(server: FileServer, scene: SyntheticEvent, tmp_path: Path) -> None:
    items, size = [], SIDE * PIXEL
    deep = tmp_path / "deep" / "3_place"
    for day, image in images_of(scene).items():
        values = image.astype(np.uint16) * 40 + 200
        write_cog(server.folder / "deep" / f"{day}.tif", values)
        role = "anomaly" if day == MONITOR else "normal"
        write_cog(deep / f"{role}_{day.replace('-', '')}.tif", values)
        assets = {"visual": f"{server.url}/deep/{day}.tif"}
        items.append(make_item(day, f"{day}T10:00:00Z", assets, "deep", width=size, height=size))
    with api_server(*documents(server, "deep", items)) as stac:
        get_event(*box_arguments(inset=0.0), "--collection", "deep", stac=stac, data_root=tmp_path / "got")
    got, own = (open_event(read_event(folder)) for folder in (tmp_path / "got" / "3_place", deep))
    record = json.loads((tmp_path / "got" / "3_place" / "event.json").read_text(encoding="utf-8"))
    assert record["stretch"][0] == "auto"
    left, top = (-offset for offset in place_of(got.monitor.path))
    for first, second in zip((*got.historical, got.monitor), (*own.historical, own.monitor), strict=True):
        one = read_window(first, Window(left, top, SIDE, SIDE)).rgb.astype(int)
        other = read_window(second, Window(0, 0, SIDE, SIDE)).rgb.astype(int)
        assert np.abs(one - other).max() <= 1


def test_planetary_computer_addresses_are_signed_by_gdal(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    write_cog(server.folder / "signed" / "image.tif", image)
    write_json(server.folder / "token" / "naip", {"msft:expiry": "2099-01-01T00:00:00Z", "token": "sv=1&sig=abc"})
    monkeypatch.setenv("VSICURL_PC_SAS_TOKEN_URL", f"{server.url}/token/")
    asset = Asset("item/image", f"{server.url}/signed/image.tif", "naip")
    with remote_files():
        assert open_image(asset, None).shape == (SIDE, SIDE)
    assert server.requests["/token/naip"]


def test_sources_have_what_a_search_needs() -> None:
    for name, source in SOURCES.items():
        assert source.stac.startswith("https://"), name
        assert source.documentation.startswith("https://"), name
        assert source.signed == ("planetarycomputer" in source.stac)
    assert SOURCES["maxar-open-data"].collection is None
