"""The report's files, without a browser."""

import json
import re
import shutil
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, osr

import config
import run_eval
import run_report
from eval_metrics import SampledMap, score_binary_map
from evaluation.explanations import NOT_COMPARED
from evaluation.regions import measure_regions
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from rasters.maps import PARAMETERS_TAG, ScoreMap
from rasters.place import find_place
from rasters.raster import MemoryRaster
from report.event_report import report_curve, slug
from report.html import ASSETS, script_data, spread_marks
from report.pictures import encode_photo, fitted_shape, pack_masks
from tests.scripts import CONTROL, FIRE, run_process
from tests.tiffs import write_tiff
from utils import UsageError, Window, list_events

DATES = ["2018-06-14", "2018-10-02", "2019-03-11", "2019-06-20"]  # the historical dates of the labelled event


def write_report(data: Path, results: Path, output: Path, *flags: object) -> int:
    roots = ("--data-root", data, "--stage1-root", results / "stage1", "--result-root", results / "stage2")
    return run_report.main([*map(str, (*roots, "--output", output, *flags))])


def page_data(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found
    return json.loads(found[1])


def write_explanation(folder: Path, dates: Sequence[str], values: Sequence[float], **tags: str) -> None:
    """Write an explanation map that holds the same values in all regions, with the tags of the anomaly map.

    `values`: the similarity with each date, and the usual score. `tags`: metadata items that differ.
    """
    anomalies = ScoreMap(folder / config.ANOMALY_MAP_NAME)
    height, width = anomalies.shape
    path, count = folder / config.EXPLANATION_NAME, len(values)
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), width, height, count, gdal.GDT_Float32)
    for number, (name, value) in enumerate(zip((*dates, "usual score"), values, strict=True), 1):
        dataset.GetRasterBand(number).Fill(value)
        dataset.GetRasterBand(number).SetDescription(name)
    dataset.SetMetadata(anomalies.dataset.GetMetadata() | tags)


def copied_results(finished: Path, root: Path) -> Path:
    """Copy the outputs of a run; returns stage 2's folder of the labelled event."""
    return Path(shutil.copytree(finished, root / "results")) / "stage2" / FIRE


def test_a_report_shows_every_event(finished: Path, small_events: Path, tmp_path: Path) -> None:
    roots = ("--data-root", small_events, "--stage1-root", finished / "stage1", "--result-root", finished / "stage2")
    done = run_process("run_report.py", *roots, "--output", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "report: 2 done, 0 skipped, 0 failed" in done.stderr
    assert str(tmp_path / "report" / "index.html") in done.stderr
    index = (tmp_path / "report" / "index.html").read_text("utf-8")
    for name in (FIRE, CONTROL):
        assert f"events/{slug(name)}.html" in index
        assert (tmp_path / "report" / "events" / f"{slug(name)}.html").is_file()
    assert "2 of 2 events on the map" in index


def test_a_report_links_only_to_files_in_its_folder(finished: Path, small_events: Path, tmp_path: Path) -> None:
    assert write_report(small_events, finished, tmp_path) == 0
    for page in tmp_path.rglob("*.html"):
        for address in re.findall(r'(?:src|href)="([^"]*)"', page.read_text("utf-8")):
            assert address.startswith("data:") or (page.parent / unescape(address)).is_file(), address
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg|www\.openstreetmap\.org/)",
        "".join(p.read_text("utf-8") for p in files(tmp_path)),
    )
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.suffix in (".html", ".js", ".css")]


def test_scores_equal_those_of_the_evaluation(
    finished: Path, small_events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_report(small_events, finished, tmp_path) == 0
    curve = page_data(tmp_path / "events" / f"{slug(FIRE)}.html")["curve"]
    for threshold in (curve["thresholds"][curve["default"]], 0.3):
        flags = ("--stage2-threshold", threshold, "--output-csv", tmp_path / "table.csv")
        run_eval.main(["--data-root", str(small_events), "--result-root", str(finished / "stage2"), *map(str, flags)])
        row = (tmp_path / "table.csv").read_text("utf-8").splitlines()[1].split(",")
        scores = curve["scores"][curve["thresholds"].index(threshold)]
        assert [float(value) for value in row[4:]] == scores
        if threshold == config.EVAL_STAGE2_FIXED_THRESH:
            index = (tmp_path / "index.html").read_text("utf-8")
            shown = re.findall(r'data-label="Stage \d \w+" data-sort="([\d.]+)"', index)
            assert shown == row[1:]


def test_the_curve_is_exact_with_pixels_without_data() -> None:
    random = np.random.default_rng(5)
    scores = np.repeat(np.repeat(random.random((12, 17), np.float32), 60, 0), 40, 1)
    scores[:70, :90] = np.nan
    label = (random.random(scores.shape) > 0.4).astype(np.uint8) * 2
    anomalies, truth = MemoryRaster(scores), MemoryRaster(label)
    curve = report_curve(anomalies, truth)
    assert config.EVAL_STAGE2_FIXED_THRESH in curve.thresholds
    found = curve.scores(0.1)
    for index in (8, 40, 100):
        binary = curve.maps[index]
        assert found[index] == score_binary_map(binary, anomalies, truth, 0.1)
        whole = binary.read(Window(0, 0, *scores.shape[::-1])) & ~np.isnan(scores)
        assert curve.flagged[index] == np.count_nonzero(whole)
    assert report_curve(anomalies, None).flagged == curve.flagged


def test_regions_are_measured_on_all_pixels() -> None:
    scores = np.zeros((700, 900), np.float32)
    scores[100:200, 300:340] = 0.25
    scores[100:150, 300:340] = 0.75
    scores[400:600, 500:700] = 0.3
    scores[400:500, 500:700] = np.nan
    binary = SampledMap.of(MemoryRaster(scores), 512).binarize(0.08, 0.0003, 3)
    regions, places = measure_regions(binary, MemoryRaster(scores))
    assert [round(region.mean_score, 1) for region in regions] == [0.5, 0.3]
    assert [region.max_score for region in regions] == pytest.approx([0.75, 0.3])
    assert regions[0].pixels == pytest.approx(4000, rel=0.05)
    assert (regions[0].x, regions[0].y) == pytest.approx((320, 150), abs=1)
    assert (regions[1].x, regions[1].y) == pytest.approx((600, 550), abs=1)
    assert set(np.unique(places)) == {0, 1, 2}


def test_folders_without_any_output_are_an_error(small_events: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path / 'stage2'} and {tmp_path / 'stage1'}: no maps of the events"):
        write_report(small_events, tmp_path, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_an_unusable_label_is_named_on_the_events_page(finished: Path, data_root: Path, tmp_path: Path) -> None:
    label = data_root / FIRE / "anomaly_20210720_label.tif"
    write_tiff(label, np.zeros((256, 256, 3), np.uint8))
    assert write_report(data_root, finished, tmp_path / "report", "--event", FIRE) == 0
    page = (tmp_path / "report" / "events" / f"{slug(FIRE)}.html").read_text("utf-8")
    assert "label not used: " in page
    assert "a label is one band of whole numbers" in page
    assert 'id="threshold"' in page


@pytest.mark.parametrize("stages", [("stage1",), ("stage2",)])
def test_partial_results_are_shown_with_the_missing_maps(
    finished: Path, small_events: Path, tmp_path: Path, stages: tuple[str, ...]
) -> None:
    for stage in stages:
        shutil.copytree(finished / stage, tmp_path / stage)
    assert write_report(small_events, tmp_path, tmp_path / "report") == 0
    index = (tmp_path / "report" / "index.html").read_text("utf-8")
    page = (tmp_path / "report" / "events" / f"{slug(FIRE)}.html").read_text("utf-8")
    missing = {
        config.CHANGE_MAP_NAME: "stage1" not in stages,
        config.FILTERED_MAP_NAME: "stage2" not in stages,
        config.ANOMALY_MAP_NAME: "stage2" not in stages,
    }
    for name, is_missing in missing.items():
        assert (f"no {name}" in index) == (f"no {name}" in page) == is_missing
    assert ('id="threshold"' in page) == ("stage2" in stages)


def test_an_event_without_label_has_no_scores(finished: Path, data_root: Path, tmp_path: Path) -> None:
    (data_root / FIRE / "anomaly_20210720_label.tif").unlink()
    assert write_report(data_root, finished, tmp_path / "report", "--event", FIRE) == 0
    index = (tmp_path / "report" / "index.html").read_text("utf-8")
    page = (tmp_path / "report" / "events" / f"{slug(FIRE)}.html").read_text("utf-8")
    for text in (
        "no label",
        "incomplete",
        "Incomplete",
        "F1",
        "Recall",
        "Scored",
        "Stage 1 against",
        "recision is weighted",
    ):
        assert text not in index + page
    assert "all complete" in index
    assert 'data-layer="label"' not in page
    assert 'data-layer="outcome"' not in page
    data = page_data(tmp_path / "report" / "events" / f"{slug(FIRE)}.html")
    assert data["curve"]["scores"] is None
    assert data["label"] is None
    assert data["curve"]["flagged"][data["curve"]["default"]] > 0


def test_bad_events_are_listed_with_their_reason(finished: Path, data_root: Path, tmp_path: Path) -> None:
    (data_root / CONTROL / "normal_20190311.tif").write_bytes(b"no image")
    (data_root / "6_empty").mkdir()
    assert write_report(data_root, finished, tmp_path / "report") == 1
    index = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert "cannot be opened as a GeoTIFF" in index
    assert "0 images without" in index
    assert f"events/{slug(FIRE)}.html" in index
    assert f"events/{slug(CONTROL)}.html" not in index
    events = (tmp_path / "report" / "assets" / "events.js").read_text("utf-8")
    assert slug(FIRE) in events
    assert CONTROL not in events


def test_an_event_with_maps_of_another_size_fails(finished: Path, small_events: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(finished, tmp_path / "results"))
    write_raster(results / "stage2" / FIRE / config.ANOMALY_MAP_NAME, np.zeros((90, 80), np.float32), Georeference())
    assert write_report(small_events, results, tmp_path / "report") == 1
    assert "its size differs from that of the images" in (tmp_path / "report" / "index.html").read_text("utf-8")


def test_names_are_escaped(finished: Path, small_events: Path, tmp_path: Path) -> None:
    name = "4_<script>alert(1)<\"'&amp;\u2028"
    folder = Path(shutil.copytree(small_events / FIRE, tmp_path / "data" / name))
    (folder / "normal_20180614.tif").rename(folder / "normal_<img src=x onerror=alert(2)>.tif")
    for stage in ("stage1", "stage2"):
        shutil.copytree(finished / stage / FIRE, tmp_path / stage / name)
    assert write_report(tmp_path / "data", tmp_path, tmp_path / "report") == 0
    written = {path.name: path.read_text("utf-8") for path in files(tmp_path / "report")}
    for content in written.values():
        assert "<script>alert" not in content
        assert "<img src=x" not in content
    assert re.fullmatch(r"[a-z0-9_-]+\.html", f"{slug(name)}.html")
    assert "\\u2028" in written["events.js"]
    assert "&lt;script&gt;alert(1)&lt;&#34;&#39;&amp;amp;" in written["index.html"]


def test_script_data_is_escaped_and_read_back() -> None:
    value = ["</script><!--", "\u2028", "\udc80", "&amp;", 0.08]
    encoded = script_data(value)
    assert not set("<>&\u2028") & set(encoded)
    assert json.loads(encoded) == value


def test_slugs_are_unique() -> None:
    names = ["4_fire", "4_Fire", "4_fire ", "4_fire!", "4_火灾", "4_火", "4_" + "x" * 90, "4_" + "x" * 91, "4_\udc80"]
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert slugs[0] == "4_fire"
    assert all(re.fullmatch(r"[a-z0-9_-]{1,70}", one) for one in slugs)


def test_photos_fit_their_size_limit() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (400, 500, 3)).astype(np.uint8)
    assert len(encode_photo(noise, 1_000_000)) > 100_000
    assert len(encode_photo(noise, 20_000)) <= 20_000


def test_page_size_is_limited_for_noise(
    small_events: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "REPORT_RASTER_BYTES", 600_000)
    monkeypatch.setattr(config, "REPORT_PHOTO_BYTES", 50_000)
    results = Path(shutil.copytree(finished, tmp_path / "results"))
    path = results / "stage2" / FIRE / config.ANOMALY_MAP_NAME
    noise = np.random.default_rng(1).random(ScoreMap(path).shape, np.float32)
    write_raster(path, noise, Georeference())
    assert write_report(small_events, results, tmp_path / "report", "--event", FIRE) == 0
    data = page_data(tmp_path / "report" / "events" / f"{slug(FIRE)}.html")
    assert sum(map(len, data["maps"].values())) <= 600_000
    photos = (tmp_path / "report" / "events" / slug(FIRE)).glob("photo*.jpg")
    assert sum(path.stat().st_size for path in photos) <= 50_000


def test_max_width_limits_the_longer_side(finished: Path, small_events: Path, tmp_path: Path) -> None:
    assert write_report(small_events, finished, tmp_path, "--max-width", 100) == 0
    assert page_data(tmp_path / "events" / f"{slug(FIRE)}.html")["grid"] == [100, 100]
    assert fitted_shape((9840, 13184), 1600) == (1194, 1600)
    assert fitted_shape((100, 50), 1600) == (100, 50)


def test_pixel_area_and_centre_of_georeferenced_images() -> None:
    utm = osr.SpatialReference()
    utm.ImportFromEPSG(32633)
    place = find_place(Georeference(utm, (500_000.0, 0.5, 0.0, 4_649_776.0, 0.0, -0.5)), (1000, 2000))
    assert place.pixel_area == pytest.approx(0.25 / 0.9996**2, rel=1e-5)  # the scale on the central meridian
    assert place.centre == pytest.approx((15.006, 41.997), abs=1e-3)
    degrees = osr.SpatialReference()
    degrees.ImportFromEPSG(4326)
    place = find_place(Georeference(degrees, (10.0, 0.001, 0.0, 50.0, 0.0, -0.001)), (1000, 1000))
    assert place.pixel_area == pytest.approx(8055, rel=1e-3)  # 72.4 m by 111.2 m at 49.5 degrees
    assert place.centre == pytest.approx((10.5, 49.5))
    mercator = osr.SpatialReference()
    mercator.ImportFromEPSG(3857)
    place = find_place(Georeference(mercator, (0.0, 1.0, 0.0, 8_399_738.0, 0.0, -1.0)), (10, 10))
    assert place.pixel_area == pytest.approx(0.25, rel=0.01)  # cos(60 degrees) squared; the ellipsoid adds a little
    assert find_place(Georeference(), (10, 10)).centre is None
    assert find_place(Georeference(utm, (1e30, 1.0, 0.0, 1e30, 0.0, -1.0)), (10, 10)).centre is None


def test_spread_marks_keep_a_minimum_distance() -> None:
    marks = np.array(spread_marks([(5.0, 5.0)] * 80, 10))
    assert (marks[0] == 5).all()
    distances = np.linalg.norm(marks[:, None] - marks, axis=-1)[~np.eye(80, dtype=bool)]
    assert distances.min() >= 10


def test_regions_are_explained(finished: Path, small_events: Path, tmp_path: Path) -> None:
    folder = copied_results(finished, tmp_path)
    write_explanation(folder, DATES, [0.712345, -0.25, NOT_COMPARED, 0.5, 0.05])
    assert write_report(small_events, folder.parents[1], tmp_path / "report") == 0
    page = tmp_path / "report" / "events" / f"{slug(FIRE)}.html"
    data, html = page_data(page), page.read_text("utf-8")
    assert data["explanation"]["dates"] == DATES
    region = {"similarities": [0.7123, -0.25, None, 0.5], "best": 0, "usual": 0.05}
    assert data["explanation"]["regions"] == [region] * len(data["regions"]["mean"])
    assert data["pins"]
    assert 'id="explanation"' in html
    assert "Incomplete" not in html


def test_regions_without_comparison_have_empty_explanations(finished: Path, small_events: Path, tmp_path: Path) -> None:
    folder = copied_results(finished, tmp_path)
    write_explanation(folder, DATES, [NOT_COMPARED] * 5)
    assert write_report(small_events, folder.parents[1], tmp_path / "report") == 0
    regions = page_data(tmp_path / "report" / "events" / f"{slug(FIRE)}.html")["explanation"]["regions"]
    assert regions[0] == {"similarities": [None] * 4, "best": None, "usual": None}


def test_a_report_without_explanation_has_no_panel(finished: Path, small_events: Path, tmp_path: Path) -> None:
    assert write_report(small_events, finished, tmp_path, "--event", FIRE) == 0
    page = tmp_path / "events" / f"{slug(FIRE)}.html"
    assert page_data(page)["explanation"] is None
    assert "explanation" not in page.read_text("utf-8").split('<script type="application/json"')[0]


@pytest.mark.parametrize(
    ("dates", "tags"),
    [
        (DATES, {PARAMETERS_TAG: '{"version": "0.0.1"}'}),
        (DATES[1:], {}),  # an image has been added since
    ],
)
def test_an_outdated_explanation_is_ignored(
    finished: Path, small_events: Path, tmp_path: Path, dates: list[str], tags: dict[str, str]
) -> None:
    folder = copied_results(finished, tmp_path)
    write_explanation(folder, dates, [0.7] * len(dates) + [0.05], **tags)
    assert write_report(small_events, folder.parents[1], tmp_path / "report") == 0
    page = tmp_path / "report" / "events" / f"{slug(FIRE)}.html"
    assert page_data(page)["explanation"] is None
    assert "Incomplete: the explanation is outdated." in page.read_text("utf-8")
    assert 'id="explanation"' not in page.read_text("utf-8")
    assert "the explanation is outdated" in (tmp_path / "report" / "index.html").read_text("utf-8")


def test_an_explanation_without_anomaly_map_is_not_mentioned(
    finished: Path, small_events: Path, tmp_path: Path
) -> None:
    folder = copied_results(finished, tmp_path)
    write_explanation(folder, DATES, [0.7] * 4 + [0.05])
    (folder / config.ANOMALY_MAP_NAME).unlink()
    assert write_report(small_events, folder.parents[1], tmp_path / "report") == 0
    page = (tmp_path / "report" / "events" / f"{slug(FIRE)}.html").read_text("utf-8")
    assert f"Incomplete: no {config.ANOMALY_MAP_NAME}." in page


def test_packed_masks_store_differences() -> None:
    masks = np.random.default_rng(0).random((5, 7, 9)) > 0.5
    assert len(pack_masks(np.repeat(masks, 50, axis=0))) < 3 * len(pack_masks(masks))


def test_land_outline_has_valid_coordinates() -> None:
    rings = json.loads((ASSETS / "land.json").read_text("utf-8"))
    for ring in rings:
        longitudes, latitudes = np.array(ring[::2]), np.array(ring[1::2])
        assert abs(latitudes).max() <= 900
        assert abs(np.diff(longitudes)).max() <= 3600
        assert longitudes.min() < 1800
        assert longitudes.max() > -1800


def test_a_report_of_one_event(finished: Path, small_events: Path, tmp_path: Path) -> None:
    assert write_report(small_events, finished, tmp_path, "--event", CONTROL) == 0
    assert [path.name for path in (tmp_path / "events").glob("*.html")] == [f"{slug(CONTROL)}.html"]
    assert len(list_events(small_events).events) == 2


def test_missing_jinja2_is_reported_in_one_line(small_events: Path, tmp_path: Path) -> None:
    (tmp_path / "jinja2.py").write_text("raise ImportError('blocked')\n")
    done = run_process("run_report.py", "--data-root", small_events, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "error: the report needs jinja2: pip install -r requirements-report.txt\n"


def test_source_and_licence_of_a_fetched_event_are_shown(finished: Path, data_root: Path, tmp_path: Path) -> None:
    record = data_root / FIRE / config.EVENT_RECORD_NAME
    page = tmp_path / "report" / "events" / f"{slug(FIRE)}.html"
    record.write_text('{"catalog": "https://x.org/<stac>", "licence": "CC-BY-4.0"}', encoding="utf-8")
    write_report(data_root, finished, tmp_path / "report", "--event", FIRE)
    assert "<dt>Source</dt><dd>https://x.org/&lt;stac&gt;</dd>" in page.read_text("utf-8")
    assert "<dt>Licence</dt><dd>CC-BY-4.0</dd>" in page.read_text("utf-8")
    record.write_text("{}", encoding="utf-8")
    write_report(data_root, finished, tmp_path / "report", "--event", FIRE)
    assert "event.json cannot be read" in page.read_text("utf-8")


def test_roles_that_the_order_of_the_names_decides_are_shown(finished: Path, data_root: Path, tmp_path: Path) -> None:
    page = tmp_path / "report" / "events" / f"{slug(FIRE)}.html"
    write_report(data_root, finished, tmp_path / "report", "--event", FIRE)
    assert "by the order of the names" not in page.read_text("utf-8")
    folder = data_root / FIRE
    (label,) = folder.glob("*_label.tif")
    (monitor,) = (path for path in folder.glob("anomaly_*.tif") if path != label)
    monitor.rename(folder / "1.tif")
    label.rename(folder / "2.tif")
    for number, path in enumerate(sorted(folder.glob("normal_*.tif")), start=3):
        path.rename(folder / f"{number}.tif")
    write_report(data_root, finished, tmp_path / "report", "--event", FIRE)
    shown = page.read_text("utf-8")
    assert "<dt>Roles, by the order of the names</dt><dd>1.tif is the monitor image, 2.tif the label, " in shown
