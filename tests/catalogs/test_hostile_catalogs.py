"""get_event.py with hostile and broken items: they are left out by name, and nothing else is read."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from osgeo import gdal

from tests.catalogs.made import write_cog, write_json, write_static_catalog
from tests.catalogs.servers import FileServer
from tests.catalogs.small_catalog import (
    BAD_DAY,
    DATES,
    MONITOR,
    check_event,
    check_left_out,
    image_item,
    pixels,
    run_get_event,
    the_error,
    warnings_of,
)

VRT = """<VRTDataset rasterXSize="256" rasterYSize="256"><SRS>EPSG:32633</SRS>
<GeoTransform>500000, 0.5, 0, 4649776, 0, -0.5</GeoTransform>{bands}</VRTDataset>"""
VRT_BAND = """<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename>{file}</SourceFilename>
<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"""


def vrt_of(file: Path | str) -> str:
    return VRT.format(bands="".join(VRT_BAND.format(band=band, file=file) for band in (1, 2, 3)))


def test_vrt_is_refused(server: FileServer, tmp_path: Path) -> None:
    target = server.folder / f"img/{MONITOR}.tif"  # on this machine
    (server.folder / f"img/{BAD_DAY}.tif").write_text(vrt_of(target))
    assert gdal.Open(str(server.folder / f"img/{BAD_DAY}.tif")).RasterCount == 3  # GDAL itself would read it
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    check_left_out(run, tmp_path, "cannot be opened as a GeoTIFF")


def local_and_hostile_hrefs(file: Path) -> dict[str, str]:
    """Addresses that name a readable image of this machine or another scheme, and what is said of them."""
    scheme, absent = "only http and https addresses", "HTTP 404"
    return {
        f"file://{file}": scheme,
        "file:///etc/passwd": scheme,
        "s3://bucket/x.tif": scheme,
        "ftp://127.0.0.1/x.tif": scheme,
        "http:///x.tif#": absent,
        f"/vsizip/{file}.zip/x.tif": absent,
        f"/vsicurl/file://{file}": absent,
        str(file): absent,
        f"../../../../../../../..{file}": absent,
        f"GTIFF_DIR:1:{file}": absent,
        f"GTIFF_RAW:{file}": absent,
        vrt_of(file).replace("\n", ""): absent,
        f"x\n{file}": "control characters",
    }


def days_of(hrefs: Sequence[str]) -> dict[str, str]:
    return {f"2020-{number // 28 + 1:02}-{number % 28 + 1:02}": href for number, href in enumerate(hrefs)}


def write_hostile_catalog(root: Path, hrefs: Sequence[str]) -> dict[str, str]:
    """Add an item for each address; returns the addresses by date."""
    days = days_of(hrefs)
    write_static_catalog(root, [image_item(day) for day in DATES] + [image_item(day, days[day]) for day in days])
    return days


def test_catalog_on_the_network_cannot_name_local_files(server: FileServer, tmp_path: Path) -> None:
    secret = write_cog(tmp_path / "secret" / "x.tif", pixels(9))
    expected = local_and_hostile_hrefs(secret)
    days = write_hostile_catalog(server.folder, list(expected))
    run = run_get_event(f"{server.url}/catalog.json", tmp_path, "--dates", "30")
    check_event(run, tmp_path)
    for day, href in days.items():
        (line,) = (line for line in warnings_of(run).splitlines() if f"S-{day}" in line)
        assert expected[href] in line, (href, line)
        assert line.isprintable()
    record = (tmp_path / "data" / "3_x" / "event.json").read_text()
    assert "x.tif" not in json.dumps(json.loads(record)["images"])


def test_local_catalog_can_name_local_geotiffs_and_nothing_else(root: Path, tmp_path: Path) -> None:
    write_cog(tmp_path / "one place" / "x.tif", pixels(9))
    file = tmp_path / "one place" / "x.tif"
    (tmp_path / "vrt.tif").write_text(vrt_of(file))
    refused, unread = "only GeoTIFFs in local files", "cannot be opened as a GeoTIFF"
    expected = {
        "/etc/passwd": unread,
        "/etc": unread,
        str(tmp_path / "vrt.tif"): unread,
        f"GTIFF_DIR:1:{file}": unread,
        f"/vsizip/{file}.zip/x.tif": refused,
        f"/vsicurl/file://{file}": refused,
        f"file:///vsicurl/file://{file}": refused,
        "s3://bucket/x.tif": refused,
        vrt_of(file).replace("\n", ""): refused,
    }
    good = {"2020-12-01": str(file), "2020-12-02": f"file://{str(file).replace(' ', '%20')}"}
    days = days_of(list(expected))
    items = [image_item(day, href) for day, href in {**good, **days}.items()] + [image_item(day) for day in DATES]
    write_static_catalog(root, items)
    for catalog in (root, root / "catalog.json"):
        run = run_get_event(catalog, tmp_path, "--dates", "30", "--dry-run")
        assert run.returncode == 0, run.stderr
        for day in good:
            assert re.search(rf"{day} .*historical image", run.stdout), run.stdout
        for day, href in days.items():
            (line,) = (line for line in warnings_of(run).splitlines() if f"S-{day}" in line)
            assert expected[href] in line, (href, line)


def test_overviews_in_another_file_are_refused(server: FileServer, tmp_path: Path) -> None:
    secret = write_cog(tmp_path / "secret.tif", pixels(9))
    (server.folder / "img/overviews.vrt").write_text(vrt_of(secret))
    days = days_of([str(secret), f":::BASE:::{secret.name}", f"{server.url}/img/overviews.vrt"])
    for day, other in days.items():
        file = write_cog(server.folder / f"img/{day}.tif", pixels(0))
        dataset = gdal.OpenEx(str(file), gdal.OF_UPDATE, open_options=["IGNORE_COG_LAYOUT_BREAK=YES"])
        dataset.SetMetadataItem("OVERVIEW_FILE", other, "OVERVIEWS")
        del dataset
        assert gdal.Open(str(file)).GetMetadataItem("OVERVIEW_FILE", "OVERVIEWS")
    write_static_catalog(server.folder, [image_item(day) for day in (*DATES, *days)])
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    check_event(run, tmp_path)
    for day in days:
        (line,) = (line for line in warnings_of(run).splitlines() if f"S-{day}" in line)
        assert "names another file as its overviews" in line
    assert "/img/overviews.vrt" not in server.requests


Change = Callable[[dict[str, Any]], object]
BROKEN_ITEMS: dict[str, tuple[Change, str]] = {
    "no geometry": (lambda item: item.update(geometry=None), "has no geometry"),
    "no geometry, no box": (lambda item: [item.pop(key) for key in ("geometry", "bbox")], "has no geometry"),
    "no date": (lambda item: item["properties"].update(datetime=None), "has no valid date"),
    "no properties": (lambda item: item.pop("properties"), "has no valid date"),
    "no valid date": (lambda item: item["properties"].update(datetime="yesterday"), "has no valid date"),
    "date is a number": (lambda item: item["properties"].update(datetime=3), "has no valid date"),
    "date before time": (lambda item: item["properties"].update(datetime="0001-01-01T00:00:00+14:00"), "valid date"),
    "other asset": (lambda item: item.update(assets={"data": {"href": "x.tif"}}), "no asset 'visual'"),
    "no assets": (lambda item: item.pop("assets"), "no asset 'visual'"),
    "assets are a list": (lambda item: item.update(assets=["visual"]), ""),
    "asset is null": (lambda item: item.update(assets={"visual": None}), "its asset has no address"),
    "href is a number": (lambda item: item.update(assets={"visual": {"href": 3}}), "its asset has no address"),
    "href is empty": (lambda item: item.update(assets={"visual": {"href": ""}}), "its asset has no address"),
    "href is no address": (lambda item: item.update(assets={"visual": {"href": "http://[x"}}), "http://[x"),
    "properties are a list": (lambda item: item.update(properties=[]), ""),
    "properties are text": (lambda item: item.update(properties="none"), ""),
    "box is short": (lambda item: item.update(bbox=[1, 2]), "its bbox is invalid"),
    "box is text": (lambda item: item.update(bbox="here"), "its bbox is invalid"),
    "geometry is text": (lambda item: item.update(geometry="here", bbox=None), "its bbox is invalid"),
    "clouds have no address": (
        lambda item: item.update(assets={"visual": {"href": "x.tif"}, "scl": {}}),
        "its asset has no address",
    ),
}


def test_broken_items_are_left_out(root: Path, tmp_path: Path) -> None:
    days = days_of([*BROKEN_ITEMS])
    write_static_catalog(root, [image_item(day) for day in (*DATES, *days)])
    for number, (day, case) in enumerate(days.items()):
        file = root / f"place/items/S-{day}.json"
        item = json.loads(file.read_text()) | {"id": f"broken-{number}"}
        BROKEN_ITEMS[case][0](item)
        write_json(file, item)
    run = run_get_event(root, tmp_path, "--dry-run")
    assert run.returncode == 0, run.stderr
    for number, (case, (_, reason)) in enumerate(BROKEN_ITEMS.items()):
        (line,) = (line for line in warnings_of(run).splitlines() if f"broken-{number}:" in line)
        assert line.startswith(f"warning: left out: broken-{number}: "), (case, line)
        assert reason in line, (case, line)
    assert re.findall(r"(?m)^(\S+) +sat-a +1 ", run.stdout) == list(DATES)


def test_broken_documents_of_items_are_left_out(root: Path, tmp_path: Path) -> None:
    texts = ["", "<html></html>", "[]", "3", "{}", "[" * 100_000, '{"links": 3, "id": []}', '"\xe9"']
    items = [image_item(day) for day in days_of(texts)]
    write_static_catalog(root, [*(image_item(day) for day in DATES), *items])
    for day, text in days_of(texts).items():
        (root / f"place/items/S-{day}.json").write_bytes(text.encode("latin-1"))
    run = run_get_event(root, tmp_path, "--dry-run")
    assert run.returncode == 0, run.stderr
    assert warnings_of(run).count("warning: left out: ") == len(texts)
    assert re.findall(r"(?m)^(\S+) +sat-a +1 ", run.stdout) == list(DATES)


def test_broken_links_exclude_nothing_else(root: Path, tmp_path: Path) -> None:
    file = root / "catalog.json"
    content = json.loads(file.read_text())
    broken: list[Any] = [3, None, ["x"], [{"rel": "child"}], [{"rel": ["child"], "href": 3}]]
    broken += [[{"rel": rel, "href": "http://[x"}] for rel in ("child", "item", "license")]
    for number, links in enumerate(broken):
        extent = ["none", {"spatial": []}, {"spatial": {"bbox": 3}}, {"temporal": {"interval": [["x"]]}}][number % 4]
        document = {**content, "id": f"broken-{number}", "links": links, "extent": extent}
        write_json(root / f"broken-{number}.json", document)
        content["links"].insert(0, {"rel": "child", "href": f"broken-{number}.json"})
    write_json(file, content)
    run = run_get_event(root, tmp_path, "--dry-run")
    assert run.returncode == 0, run.stderr
    assert re.findall(r"(?m)^(\S+) +sat-a +1 ", run.stdout) == list(DATES)


def test_items_with_another_asset_only_are_a_usage_error(server: FileServer, tmp_path: Path) -> None:
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path, "--asset", "ms"), tmp_path, code=2)
    assert "no item has an asset 'ms'; --asset names one of visual" in message


@pytest.mark.parametrize(
    "back", ["../catalog.json", "collection.json", "../place/../catalog.json", "../catalog.json#top"]
)
def test_catalog_with_a_loop_is_read_once(server: FileServer, tmp_path: Path, back: str) -> None:
    for file, link in (("catalog.json", "catalog.json"), ("place/collection.json", back)):
        content = json.loads((server.folder / file).read_text())
        content["links"] += [{"rel": rel, "href": link} for rel in ("child", "parent", "root", "self", "item")]
        write_json(server.folder / file, content)
    run = run_get_event(f"{server.url}/catalog.json", tmp_path, "--dry-run")
    assert run.returncode == 0, run.stderr
    assert all(day in run.stdout for day in DATES)
    read = {path: len(ranges) for path, ranges in server.requests.items() if path.endswith(".json")}
    assert len(read) == 6
    assert set(read.values()) == {1}
