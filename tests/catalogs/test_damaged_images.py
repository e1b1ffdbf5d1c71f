"""get_event.py with damaged and unsuitable images: they are left out by name, or named as the reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, gdal_array

from tests.catalogs.made import write_cog
from tests.catalogs.servers import FileServer
from tests.catalogs.small_catalog import (
    BAD_DAY,
    BAD_FILE,
    DATES,
    LARGE_BOX,
    check_event,
    check_left_out,
    cut,
    pixels,
    run_get_event,
    the_error,
)


def test_truncated_image_is_left_out(server: FileServer, tmp_path: Path) -> None:
    cut(server.folder / f"img/{BAD_DAY}.tif")
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    check_left_out(run, tmp_path, f"S-{BAD_DAY}/visual: cannot be read, damaged or cut off")


def test_image_truncated_behind_its_overviews_is_named(large_server: FileServer, tmp_path: Path) -> None:
    cut(large_server.folder / f"img/{BAD_DAY}.tif")
    run = run_get_event(f"{large_server.url}/catalog.json", tmp_path, box=LARGE_BOX)
    assert f"S-{BAD_DAY}/visual: cannot be read, damaged or cut off" in the_error(run, tmp_path)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"<html>sign in</html>"])
def test_file_that_is_no_image_is_left_out(server: FileServer, tmp_path: Path, content: bytes) -> None:
    (server.folder / f"img/{BAD_DAY}.tif").write_bytes(content)
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    check_left_out(run, tmp_path, f"S-{BAD_DAY}/visual: cannot be opened as a GeoTIFF")


def test_image_without_georeference_is_left_out(server: FileServer, tmp_path: Path) -> None:
    file = server.folder / f"img/{BAD_DAY}.tif"
    gdal.GetDriverByName("GTiff").CreateCopy(str(file), gdal_array.OpenArray(pixels(0).transpose(2, 0, 1)))
    check_left_out(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path, "is not georeferenced")


def test_historical_image_of_another_type_is_left_out(server: FileServer, tmp_path: Path) -> None:
    write_cog(server.folder / f"img/{BAD_DAY}.tif", pixels(0).astype(np.uint16) * 20)
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    check_event(run, tmp_path, BAD_FILE)
    record = json.loads((tmp_path / "data" / "3_x" / "event.json").read_text())
    (left_out,) = record["not_chosen"]
    assert left_out["reason"] == "3 band(s) of uint16, the monitor image has 3 band(s) of uint8"
    dry = run_get_event(f"{server.url}/catalog.json", tmp_path, "--dry-run")
    assert f"no: {left_out['reason']}" in dry.stdout


def test_grey_images_are_named(server: FileServer, tmp_path: Path) -> None:
    for number, day in enumerate(DATES):
        write_cog(server.folder / f"img/{day}.tif", pixels(number, bands=1))
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert "1 band(s), but colour images are needed" in message
