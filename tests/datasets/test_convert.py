"""Tiny trees in the layout of each data set, whole and damaged, through `python -m datasets.convert`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, ogr

from datasets import convert
from datasets.event_folder import link
from datasets.oscd import IMAGES, LABELS
from img_io import open_event, open_label, read_window
from tests.helpers import whole
from tests.scripts import run_process
from tests.tiffs import crs, write_png, write_tiff
from utils import Window, list_events, read_event

RNG = np.random.default_rng(3)
SIDE = 64
TRANSFORM = (500000.0, 4.0, 0.0, 4200000.0, 0.0, -4.0)
EVERYWHERE = Window(0, 0, SIDE, SIDE)


def image(bands: int = 3, kind: type = np.uint8) -> np.ndarray:
    return RNG.integers(1, 250, (SIDE, SIDE, bands), kind)


def squares(*places: tuple[int, int]) -> np.ndarray:
    """A mask of squares of 8 pixels a side."""
    mask = np.zeros((SIDE, SIDE), bool)
    for x, y in places:
        mask[y : y + 8, x : x + 8] = True
    return mask


def place(dataset: gdal.Dataset) -> None:
    dataset.SetGeoTransform(TRANSFORM)
    dataset.SetSpatialRef(crs(32632))


def write(path: Path, values: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        write_png(path, values)
    else:
        write_tiff(path, values, change=place)
    return values


def converted(name: str, source: Path, code: int = 0) -> Path:
    target = source.parent / "events"
    assert convert.main([name, str(source), str(target)]) == code
    return target


def check(folder: Path, dates: list[np.ndarray], label: np.ndarray) -> None:
    """Compare the images, (H, W, 3) oldest first, and the label of an event with what was written."""
    event = read_event(folder)
    images = open_event(event)
    read = [read_window(one, EVERYWHERE).rgb for one in (*images.historical, images.monitor)]
    if dates[0].dtype == np.uint8:
        np.testing.assert_array_equal(read, dates)
    assert len(read) == len(dates)
    np.testing.assert_array_equal(whole(open_label(event)) > 1, label)


# --- One tree per data set -------------------------------------------------------------------------------------------
def pair_tree(root: Path, names: tuple[str, str, str], files: tuple[str, str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Two pairs, the first of which is returned."""
    trees = []
    for file in files:
        dates = [write(root / folder / file, image()) for folder in names[:2]]
        mask = squares((8, 16))
        write(root / names[2] / file, np.where(mask, 255, 0).astype(np.uint8))
        trees.append((dates, mask))
    return trees[0]


@pytest.mark.parametrize("split", ["", "test"])
def test_levir_cd_with_and_without_splits(tmp_path: Path, split: str) -> None:
    files = ("test_1.png", "test_2.png") if split else ("val_27_0000_0256.png", "train_412_0512_0768.png")
    dates, mask = pair_tree(tmp_path / "LEVIR-CD" / split, ("A", "B", "label"), files)
    target = converted("levir-cd", tmp_path / "LEVIR-CD")
    names = {path.name for path in target.iterdir()}
    assert names == {f"6_LEVIR_{Path(file).stem}" for file in files}
    check(target / f"6_LEVIR_{Path(files[0]).stem}", dates, mask)


def test_s2looking_names_have_the_split(tmp_path: Path) -> None:
    dates, mask = pair_tree(tmp_path / "S2Looking" / "val", ("Image1", "Image2", "label"), ("17.png", "18.png"))
    check(converted("s2looking", tmp_path / "S2Looking") / "6_S2Looking_val_17", dates, mask)


def test_gvlm_sites_are_landslides(tmp_path: Path) -> None:
    site = tmp_path / "GVLM_CD" / "A Luoi_Vietnam"
    dates = [write(site / name, image()) for name in ("im1.png", "im2.png")]
    write(site / "ref.png", np.where(squares((0, 0)), 255, 0).astype(np.uint8))
    check(converted("gvlm", tmp_path / "GVLM_CD") / "3_GVLM_A_Luoi_Vietnam", dates, squares((0, 0)))


def oscd_tree(root: Path, city: str = "nantes", png: bool = False) -> list[np.ndarray]:
    dates = []
    for number in (1, 2):
        bands = image(kind=np.uint16)
        for index, band in enumerate(("B04", "B03", "B02")):
            write(root / IMAGES / city / f"imgs_{number}_rect" / f"{band}.tif", bands[..., index])
        dates.append(bands)
    (root / IMAGES / city / "dates.txt").write_text("date_1: 20150821\ndate_2: 20171014\n")
    maps = root / LABELS[png] / city / "cm"
    if png:
        write(maps / "cm.png", np.where(squares((4, 4)), 255, 0).astype(np.uint8))
    else:
        write(maps / f"{city}-cm.tif", np.where(squares((4, 4)), 2, 1).astype(np.uint8))
    return dates


@pytest.mark.parametrize("png", [False, True])
def test_oscd_stacks_bands(tmp_path: Path, png: bool) -> None:
    dates = oscd_tree(tmp_path / "OSCD", png=png)
    folder = converted("oscd", tmp_path / "OSCD") / "6_OSCD_nantes"
    assert {path.name for path in folder.iterdir()} == {
        "normal_20150821.tif",
        "anomaly_20171014.tif",
        "anomaly_20171014_label.tif",
    }
    check(folder, dates, squares((4, 4)))
    stacked = gdal.Open(str(folder / "normal_20150821.tif"))
    np.testing.assert_array_equal(stacked.ReadAsArray().transpose(1, 2, 0), dates[0])
    assert stacked.GetGeoTransform() == TRANSFORM


def xbd_tree(root: Path, disaster: str = "fire", suffix: str = ".png") -> list[np.ndarray]:
    name = "santa-rosa-wildfire_00000012"
    kinds = ("no-damage", "minor-damage", "major-damage", "destroyed", "un-classified")
    dates = []
    for role, day in (("pre", "2017-07-02T18:31:11.000Z"), ("post", "2017-10-11T19:00:00.000Z")):
        dates.append(write(root / "images" / f"{name}_{role}_disaster{suffix}", image()))
        buildings = [
            {
                "properties": {"feature_type": "building"} | ({"subtype": kind} if role == "post" else {}),
                "wkt": f"POLYGON (({x} 8, {x + 8} 8, {x + 8} 16, {x} 16, {x} 8))",
            }
            for x, kind in zip(range(0, 50, 10), kinds, strict=True)
        ]
        metadata = {"capture_date": day, "disaster_type": disaster, "width": SIDE, "height": SIDE}
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{name}_{role}_disaster.json").write_text(
            json.dumps({"features": {"lng_lat": [], "xy": buildings}, "metadata": metadata})
        )
    return dates


def test_xbd_labels_are_damaged_buildings(tmp_path: Path) -> None:
    dates = xbd_tree(tmp_path / "xbd" / "tier3")
    folder = converted("xbd", tmp_path / "xbd") / "4_xBD_santa-rosa-wildfire_00000012"
    check(folder, dates, squares((10, 8), (20, 8), (30, 8)))
    assert (folder / "normal_20170702.tif").exists()


def test_geotiffs_are_linked(tmp_path: Path) -> None:
    xbd_tree(tmp_path / "xbd", disaster="flooding", suffix=".tif")
    folder = converted("xbd", tmp_path / "xbd") / "6_xBD_santa-rosa-wildfire_00000012"
    original = tmp_path / "xbd" / "images" / "santa-rosa-wildfire_00000012_post_disaster.tif"
    assert (folder / "anomaly_20171011.tif").samefile(original)
    assert gdal.Open(str(folder / "anomaly_20171011_label.tif")).GetGeoTransform() == TRANSFORM


def test_a_file_that_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_file_system(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", other_file_system)
    (tmp_path / "one").write_bytes(b"content")
    link(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == b"content"


def buildings_of(path: Path, ids: dict[int, tuple[int, int]]) -> None:
    """Write buildings of 8 pixels a side in longitude and latitude, by their Id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = gdal.GetDriverByName("Memory").Create("", 0, 0, 0, gdal.GDT_Unknown)
    layer = dataset.CreateLayer("buildings", crs(32632))
    layer.CreateField(ogr.FieldDefn("Id", ogr.OFTInteger))
    for number, (x, y) in ids.items():
        west, north = TRANSFORM[0] + 4 * x, TRANSFORM[3] - 4 * y
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetField("Id", number)
        corners = [(west, north), (west + 32, north), (west + 32, north - 32), (west, north - 32), (west, north)]
        feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON (({', '.join(f'{px} {py}' for px, py in corners)}))"))
        layer.CreateFeature(feature)
    gdal.VectorTranslate(str(path), dataset, format="GeoJSON", dstSRS="EPSG:4326")


PLACE = "L15-0331E-1257N_1327_3160_13"


def spacenet7_tree(root: Path) -> list[np.ndarray]:
    months = ("2018_01", "2018_05", "2018_09", "2019_02", "2019_06")
    dates = []
    for number, month in enumerate(months):
        name = f"global_monthly_{month}_mosaic_{PLACE}"
        values = image(4)
        values[..., 3] = 255
        dates.append(write(root / PLACE / "images_masked" / f"{name}.tif", values)[..., :3])
        ids = {1: (0, 0), 2: (16, 16), 3: (32, 0), 4: (40, 40)}
        known = {key: ids[key] for key in list(ids)[: number + 1]}
        buildings_of(root / PLACE / "labels_match" / f"{name}_Buildings.geojson", known)
    return [*dates[:2], dates[-1]]


@pytest.mark.parametrize("folder", ["", "train"])
def test_spacenet7_labels_are_the_buildings_of_the_last_year(tmp_path: Path, folder: str) -> None:
    dates = spacenet7_tree(tmp_path / "SN7" / folder)
    target = converted("spacenet7", tmp_path / "SN7") / f"6_SN7_{PLACE}"
    assert [path.name for path in read_event(target).historical] == ["normal_20180101.tif", "normal_20180501.tif"]
    check(target, dates, squares((32, 0), (40, 40)))  # the reference image, of May, has the first two
    assert (target / "normal_20180101.tif").stat().st_nlink == 2


# --- Damaged trees ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", convert.NAMES)
def test_a_folder_without_the_layout_is_wrong_usage(tmp_path: Path, name: str) -> None:
    done = run_process("-mdatasets.convert", name, tmp_path, tmp_path / "events")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}")
    assert not (tmp_path / "events").exists()


def remove(pattern: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for path in root.rglob(pattern):
            path.unlink()

    return damage


def cut(pattern: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for path in root.rglob(pattern):
            path.write_bytes(path.read_bytes()[:60])

    return damage


@pytest.mark.parametrize(
    ("name", "make", "damage", "message"),
    [
        ("oscd", oscd_tree, remove("dates.txt"), "dates.txt: does not give two dates"),
        ("oscd", oscd_tree, remove("*-cm.tif"), "no change map of nantes"),
        ("oscd", oscd_tree, remove("B03.tif"), "B03.tif: missing"),
        ("oscd", oscd_tree, cut("B02.tif"), "B02.tif: cannot be"),
        ("xbd", xbd_tree, cut("*_post_*.json"), "no label of xBD"),
        ("xbd", xbd_tree, remove("*_pre_*.json"), "_pre_disaster.json: missing"),
        ("xbd", xbd_tree, remove("*_pre_*.png"), "_pre_disaster.png: missing"),
        ("xbd", xbd_tree, cut("*_post_*.png"), "_post_disaster.png: cannot be"),
        ("spacenet7", spacenet7_tree, remove("*2019_06*.geojson"), "no GeoJSON of buildings"),
        ("spacenet7", spacenet7_tree, cut("*2018_05*.geojson"), "no GeoJSON of buildings"),
        ("spacenet7", spacenet7_tree, remove("*2018*.tif"), "no image at least 12 months before"),
        ("spacenet7", spacenet7_tree, remove("*.tif"), "no global_monthly_"),
    ],
)
def test_what_is_damaged_is_named_and_leaves_no_event(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    make: Callable[[Path], object],
    damage: Callable[[Path], object],
    message: str,
) -> None:
    make(tmp_path / "source")
    damage(tmp_path / "source")
    target = converted(name, tmp_path / "source", code=1)
    assert message in caplog.text
    assert not target.exists() or list(target.iterdir()) == []


def test_sizes_must_agree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = tmp_path / "GVLM" / "site"
    for file, side in (("im1.png", 64), ("im2.png", 64), ("ref.png", 63)):
        write(site / file, image()[:side, :side, : 1 if file == "ref.png" else 3])
    converted("gvlm", tmp_path / "GVLM", code=1)
    assert "3_GVLM_site: images and label of 63 x 63 and 64 x 64 pixels" in caplog.text


def test_one_damaged_pair_does_not_stop_the_others_and_a_second_run_keeps_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair_tree(tmp_path / "LEVIR", ("A", "B", "label"), ("train_1.png", "train_2.png"))
    whole_file = (tmp_path / "LEVIR" / "B" / "train_1.png").read_bytes()
    (tmp_path / "LEVIR" / "B" / "train_1.png").write_bytes(whole_file[:100])
    target = converted("levir-cd", tmp_path / "LEVIR", code=1)
    assert [event.name for event in list_events(target).events] == ["6_LEVIR_train_2"]
    (tmp_path / "LEVIR" / "B" / "train_1.png").write_bytes(whole_file)
    caplog.clear()
    converted("levir-cd", tmp_path / "LEVIR")
    assert "skipped 6_LEVIR_train_2: its folder exists" in caplog.text
    assert "1 done, 1 skipped, 0 failed" in caplog.text
