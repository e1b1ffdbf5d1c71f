"""get_event.py with places, dates and flags that give no event, in one line each."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.catalogs.made import ORIGIN, lonlat_box, write_static_catalog
from tests.catalogs.servers import FileServer
from tests.catalogs.small_catalog import (
    BOX,
    DATES,
    HISTORICAL,
    MONITOR,
    WIDTH,
    check_event,
    image_item,
    run_get_event,
    the_error,
    warnings_of,
)
from tests.scripts import run_process


# --- Places and dates ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((179.9, 40.0, -179.9, 40.1), "a box over the antimeridian is not supported"),
        ((15.0, 42.0, 15.1, 41.9), "south below north"),
        ((15.0, 42.0, 15.0, 42.1), "west is not below east"),
        ((500000.0, 4649776.0, 500100.0, 4649876.0), "in degrees"),
    ],
)
def test_impossible_box_is_a_usage_error(
    server: FileServer, tmp_path: Path, box: Sequence[float], problem: str
) -> None:
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path, box=box), tmp_path, code=2)
    assert problem in message
    assert not server.requests


def test_large_box_is_named_with_flags_that_help(server: FileServer, tmp_path: Path) -> None:
    catalog = f"{server.url}/catalog.json"
    message = the_error(run_get_event(catalog, tmp_path, "--size", 100), tmp_path, code=2)
    found = re.search(r"above --size 100: take a smaller box, (--size \d+), or (--resolution [\d.]+)", message)
    assert found, message
    for flags in found.groups():
        more = ("--size", 100) if "resolution" in flags else ()
        run = run_get_event(catalog, tmp_path, *more, *flags.split(), "--dry-run")
        assert run.returncode == 0, run.stderr


def test_small_box_is_named(server: FileServer, tmp_path: Path) -> None:
    box = lonlat_box(ORIGIN, WIDTH, WIDTH, inset=50)
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path, box=box), tmp_path, code=2)
    assert "at least 64 per side are needed; take a larger box" in message


def test_box_without_images_is_named(server: FileServer, tmp_path: Path) -> None:
    box = [number - 3 for number in BOX]
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path, box=box), tmp_path)
    assert "no images of " in message
    assert not [path for path in server.requests if path.endswith(".tif")]


@pytest.mark.parametrize(
    ("days", "problem"),
    [
        (HISTORICAL, "no image from 2021-07-01 to 2021-07-31; take a longer --after"),
        ((MONITOR,), "can be the reference image"),
        ((), "no images of "),
    ],
)
def test_lacking_dates_are_named(server: FileServer, tmp_path: Path, days: Sequence[str], problem: str) -> None:
    write_static_catalog(server.folder, [image_item(day) for day in days])
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert problem in message


def test_one_historical_date_is_enough_with_a_warning(server: FileServer, tmp_path: Path) -> None:
    write_static_catalog(server.folder, [image_item(day) for day in DATES[-2:]])
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    check_event(run, tmp_path, "normal_20201002.tif", "normal_20210311.tif")
    assert re.search(r"\b1 dates? before the event, 1 on or after it", run.stderr)
    assert "one historical date" in warnings_of(run)


# --- Flags -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--images", f"S-{MONITOR}", "S-none"), "S-none: not found at this place"),
        (("--images", "S-2021-06-20"), "--images: name the items of one date from 2021-07-01 on"),
        (("--crs", "EPSG:1"), "--crs EPSG:1: unknown"),
        (("--crs", "/etc/passwd"), "--crs /etc/passwd: unknown"),
        (("--crs", "EPSG:4326"), "is not projected in metres"),
        (("--name", ""), "--name"),
        (("--name", "landslide"), "begins with 0_ to 6_"),
        (("--name", "7_landslide"), "begins with 0_ to 6_"),
        (("--name", "3_a/../../b"), "--name"),
        (("--date", "2021-13-01"), "--date"),
        (("--before", "2 years"), "--before"),
        (("--bands", "1,2"), "--bands"),
        (("--max-cloud", "101"), "--max-cloud"),
        (("--stac", "s3://bucket/catalog.json"), "--stac s3://bucket/catalog.json"),
        (("--stac", "file:///etc/passwd"), "--stac file:///etc/passwd"),
        (("--stac", "none.json"), "does not exist"),
        (("--stac", "docs"), "the folder has no catalog.json or collection.json"),
    ],
)
def test_wrong_flag_is_a_usage_error(server: FileServer, tmp_path: Path, flags: Sequence[str], problem: str) -> None:
    run = run_get_event(f"{server.url}/catalog.json", tmp_path, *flags)
    assert problem in the_error(run, tmp_path, code=2)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("missing", ["--name", "--date", "--bbox", "--stac"])
def test_missing_flag_is_a_usage_error(tmp_path: Path, missing: str) -> None:
    flags = {"--name": ["3_x"], "--date": ["2021-07-01"], "--bbox": [*map(repr, BOX)], "--stac": ["docs"]}
    rest = [part for flag, values in flags.items() if flag != missing for part in (flag, *values)]
    run = run_process("get_event.py", *rest, "--data-root", tmp_path / "data")
    message = the_error(run, tmp_path, code=2)
    assert missing in message
    assert "needed" in message


def test_existing_event_is_left_as_it_is(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "3_x"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    assert run.returncode == 0
    assert f"{folder}: exists, nothing to do" in run.stderr
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["3_x"]
    assert not server.requests


def test_images_that_a_killed_run_left_beside_a_complete_event_are_removed(server: FileServer, tmp_path: Path) -> None:
    left = tmp_path / "data" / ".3_x.get_event"
    for folder in (tmp_path / "data" / "3_x", left):
        folder.mkdir(parents=True)
    for name in ("20210705.tif", ".20210712.part.tif", ".lock"):
        (left / name).touch()
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    assert run.returncode == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["3_x"]


def test_dry_run_writes_nothing(server: FileServer, tmp_path: Path) -> None:
    run = run_get_event(f"{server.url}/catalog.json", tmp_path, "--dry-run")
    assert run.returncode == 0
    assert not (tmp_path / "data").exists()


def test_without_pystac_client_there_is_one_line(tmp_path: Path) -> None:
    text = (
        "import sys; sys.modules['pystac_client'] = None; import get_event; from cli.script import run_script; "
        "run_script(get_event.main)"
    )
    flags = ("--name", "3_x", "--date", "2021-07-01", "--bbox", *map(repr, BOX), "--stac", "docs")
    run = run_process("-c", text, *flags, "--data-root", tmp_path / "data")
    message = the_error(run, tmp_path, code=2)
    assert message == "error: get_event.py needs pystac-client: pip install -r requirements-stac.txt"
    assert run.stderr.splitlines() == [message]
