"""get_event.py against broken servers and hostile catalogs: named errors, and an event folder whole or not at all."""

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from osgeo import gdal, gdal_array

from cli.script import CERTIFICATES
from tests.catalogs.made import (
    ORIGIN,
    PIXEL,
    lonlat_box,
    make_collection,
    make_item,
    write_cog,
    write_json,
    write_static_catalog,
)
from tests.catalogs.servers import FileServer, file_server
from tests.scripts import run_process, started

SIDE = 256  # pixels
WIDTH = SIDE * PIXEL  # metres
MONITOR = "2021-07-20"
HISTORICAL = ("2020-10-02", "2021-03-11", "2021-06-20")
DATES = (*HISTORICAL, MONITOR)
MANY_DATES = ("2020-07-15", "2020-08-20", *DATES)  # more than are fetched at once
FILES = ["anomaly_20210720.tif", "event.json", *(f"normal_{day.replace('-', '')}.tif" for day in HISTORICAL)]
BAD_DAY, BAD_FILE = HISTORICAL[0], "normal_20201002.tif"
ATTEMPTS = 3
ENVIRONMENT = {
    "ANOMALYCD_CATALOG_PAUSE": "0.0",
    "ANOMALYCD_CATALOG_ATTEMPTS": str(ATTEMPTS),
    "ANOMALYCD_CATALOG_TIMEOUT": "20",
}
BOX = lonlat_box(ORIGIN, WIDTH, WIDTH, inset=2)
SECRETS = ("password-1", "token-2", "signature-3")


# --- Catalogs and runs -----------------------------------------------------------------------------------------------
def pixels(seed: int, side: int = SIDE, bands: int = 3) -> np.ndarray:
    """Noise, which compresses so badly that a file has more bytes than GDAL reads at once."""
    return np.random.default_rng(seed).integers(1, 120, (side, side, bands), np.uint8)


def image_item(day: str, href: str | None = None, **more: Any) -> dict[str, Any]:
    return make_item(
        f"S-{day}",
        f"{day}T10:00:00Z",
        {"visual": href or f"../../img/{day}.tif"},
        **{"width": WIDTH, "height": WIDTH} | more,
    )


def write_images(root: Path, side: int, days: Sequence[str] = DATES) -> None:
    for number, day in enumerate(days):
        write_cog(root / f"img/{day}.tif", pixels(number, side))


@pytest.fixture(scope="module")
def first_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four images and their catalog."""
    folder = tmp_path_factory.mktemp("catalog")
    write_images(folder, SIDE)
    write_static_catalog(folder, [image_item(day) for day in DATES])
    return folder


@pytest.fixture
def root(first_catalog: Path, tmp_path: Path) -> Path:
    """A copy of `first_catalog` that a test may change."""
    return Path(shutil.copytree(first_catalog, tmp_path / "catalog"))


@pytest.fixture
def server(root: Path) -> Iterator[FileServer]:
    with file_server(root) as server:
        yield server


class Fault:
    """Does one thing with the first requests of matching paths."""

    def __init__(self, what: int | str, where: str, times: float = float("inf")) -> None:
        """`what`: see servers.Fault. `where`: regular expression. `times`: for how many requests of each path."""
        self.what, self.where, self.times = what, where, times
        self.hits: Counter[str] = Counter()

    def __call__(self, path: str) -> int | str | None:
        if not re.search(self.where, path) or self.hits[path] >= self.times:
            return None
        self.hits[path] += 1
        return self.what


def run_get_event(
    catalog: str | Path, tmp_path: Path, *more: object, box: Sequence[float] = BOX
) -> CompletedProcess[str]:
    return run_process("get_event.py", *get_event_arguments(catalog, tmp_path, box), *more, **ENVIRONMENT)


def get_event_arguments(catalog: str | Path, tmp_path: Path, box: Sequence[float]) -> list[object]:
    return [
        *("--name", "3_x", "--date", "2021-07-01", "--data-root", tmp_path / "data", "--stac", catalog),
        *("--bbox", *map(repr, box)),
    ]


def event_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data" / "3_x").iterdir())


def warnings_of(run: CompletedProcess[str]) -> str:
    return "\n".join(line for line in run.stderr.splitlines() if line.startswith("warning: "))


def the_error(run: CompletedProcess[str], tmp_path: Path, code: int = 1) -> str:
    """The one line that says why there is no event."""
    errors = [line for line in run.stderr.splitlines() if re.match(r"error: |get_event\.py: error: ", line)]
    assert run.returncode == code, run.stderr
    assert len(errors) == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert "unexpected" not in run.stderr
    assert not (tmp_path / "data" / "3_x").exists()
    return errors[0]


def check_event(run: CompletedProcess[str], tmp_path: Path, *lacking: str) -> None:
    """The event is whole, but for the files that are lacking."""
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    assert "unexpected" not in run.stderr
    assert event_files(tmp_path) == [name for name in FILES if name not in lacking]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["3_x"]


def check_left_out(run: CompletedProcess[str], tmp_path: Path, reason: str) -> None:
    """The image of one date was left out, by name, on the terminal and in the event's record."""
    check_event(run, tmp_path, BAD_FILE)
    lines = [line for line in warnings_of(run).splitlines() if BAD_DAY in line]
    assert len(lines) == 1, run.stderr
    assert re.search(reason, lines[0]), lines[0]
    record = json.loads((tmp_path / "data" / "3_x" / "event.json").read_text())
    (left_out,) = record["not_chosen"]
    assert left_out["date"] == BAD_DAY
    assert left_out["reason"] in lines[0]


# --- Servers that fail -----------------------------------------------------------------------------------------------
def test_healthy_server_gives_the_event(server: FileServer, tmp_path: Path) -> None:
    check_event(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    # Nothing beside the files themselves is looked for.
    assert {Path(path).suffix for path in server.requests} == {".json", ".tif"}
    assert all(len(ranges) == 1 for path, ranges in server.requests.items() if path.endswith(".json"))


@pytest.mark.parametrize(("what", "times"), [("break", 1), (429, 2), (503, 1)])
def test_passing_fault_is_overcome(server: FileServer, tmp_path: Path, what: int | str, times: int) -> None:
    server.fault = fault = Fault(what, "", times)
    check_event(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert len(fault.hits) == 6 + 4  # documents and images
    assert set(fault.hits.values()) == {times}


def test_image_is_not_taken_for_damaged_before_the_last_attempt(server: FileServer, tmp_path: Path) -> None:
    server.fault = Fault("break", rf"{BAD_DAY}\.tif", 2 * ATTEMPTS - 2)
    check_event(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("code", "where"), [(429, "^/catalog.json"), (503, rf"{MONITOR}\.tif"), (429, rf"{BAD_DAY}\.tif")]
)
def test_busy_server_is_named(server: FileServer, tmp_path: Path, code: int, where: str) -> None:
    server.fault = fault = Fault(code, where)
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert f"HTTP {code}" in message
    assert "again" in message
    assert re.search(r"catalog\.json|S-20\d\d-\d\d-\d\d/visual", message), message
    # Of an image's first attempt, GDAL repeats the request once, and another request finds out why it failed.
    assert ATTEMPTS <= fault.hits.total() <= ATTEMPTS + 2 * where.endswith("tif")


def test_pause_that_a_busy_server_asks_for_is_kept(server: FileServer, tmp_path: Path) -> None:
    server.fault, server.headers = Fault(503, "^/catalog.json", 1), {"Retry-After": "1"}
    log = tmp_path / "log.txt"
    check_event(run_get_event(f"{server.url}/catalog.json", tmp_path, "--log-file", log), tmp_path)
    assert "trying again in 1 s" in log.read_text()


def test_server_that_asks_for_a_long_pause_is_not_waited_for(server: FileServer, tmp_path: Path) -> None:
    server.fault, server.headers = fault, _ = Fault(503, "^/catalog.json"), {"Retry-After": "86400"}
    assert "HTTP 503" in the_error(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert fault.hits.total() == 1


def test_busy_server_of_a_part_of_the_catalog_does_not_look_like_an_empty_catalog(
    server: FileServer, tmp_path: Path
) -> None:
    server.fault = Fault(503, "S-2021-03-11.json")
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert "HTTP 503" in message
    assert "S-2021-03-11.json" in message


@pytest.mark.parametrize("code", [403, 404])
def test_refused_image_is_left_out(server: FileServer, tmp_path: Path, code: int) -> None:
    server.fault = Fault(code, rf"{BAD_DAY}\.tif")
    check_left_out(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path, f"HTTP {code}")


def test_refused_monitor_image_is_named(server: FileServer, tmp_path: Path) -> None:
    server.fault = Fault(404, rf"{MONITOR}\.tif")
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert "none of the 1 images" in message
    assert "HTTP 404" in message


def test_refused_item_is_named(server: FileServer, tmp_path: Path) -> None:
    server.fault = Fault(403, f"S-{BAD_DAY}.json")
    run = run_get_event(f"{server.url}/catalog.json", tmp_path)
    check_event(run, tmp_path, BAD_FILE)
    assert re.search(rf"left out: .*S-{BAD_DAY}\.json.*HTTP 403", warnings_of(run)), run.stderr


@pytest.mark.parametrize("code", [401, 404])
def test_refused_catalog_is_named(server: FileServer, tmp_path: Path, code: int) -> None:
    server.fault = Fault(code, "^/catalog.json")
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert "/catalog.json" in message
    assert f"HTTP {code}" in message


def test_absent_server_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        address = f"http://127.0.0.1:{free.getsockname()[1]}/catalog.json"
        message = the_error(run_get_event(address, tmp_path), tmp_path)
    assert address in message
    assert "check the address and the network" in message


@pytest.mark.parametrize("text", ["<html></html>", "[]", "3", '{"type": "Nothing"}', "[" * 100_000, '"\xe9"'])
def test_document_that_is_no_catalog_is_named(server: FileServer, tmp_path: Path, text: str) -> None:
    (server.folder / "catalog.json").write_bytes(text.encode("latin-1"))
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path), tmp_path)
    assert f"{server.url}/catalog.json" in message


# --- Servers with certificates of their own --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that no authority has signed, with its key, in one file."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs openssl")
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command: list[str | Path] = [
        program,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        file,
        "-out",
        file,
        *names,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return file


UNTRUSTED = dict.fromkeys(CERTIFICATES, "")


@pytest.mark.parametrize("variable", CERTIFICATES)
def test_one_variable_names_the_certificates_to_trust(
    root: Path, tmp_path: Path, certificate: Path, variable: str
) -> None:
    with file_server(root, certificate) as server:
        arguments = get_event_arguments(f"{server.url}/catalog.json", tmp_path, BOX)
        run = run_process("get_event.py", *arguments, **ENVIRONMENT, **UNTRUSTED | {variable: str(certificate)})
    check_event(run, tmp_path)


def test_certificate_that_is_not_trusted_is_named(root: Path, tmp_path: Path, certificate: Path) -> None:
    with file_server(root, certificate) as server:
        arguments = get_event_arguments(f"{server.url}/catalog.json", tmp_path, BOX)
        message = the_error(run_process("get_event.py", *arguments, **ENVIRONMENT, **UNTRUSTED), tmp_path)
    assert "self-signed certificate; CURL_CA_BUNDLE names a file" in message


# --- Servers that move documents, or list them in part ---------------------------------------------------------------
def test_links_are_relative_to_the_address_after_a_redirect(server: FileServer, tmp_path: Path) -> None:
    root = server.folder
    server.moved = {"/latest/catalog.json": "/catalog.json", "/place/items": "/place/new/items"}
    (root / "place/new").mkdir()
    (root / "place/items").rename(root / "place/new/items")
    (root / "img").rename(root / "place/img")
    for item in (root / "place/new/items").iterdir():  # they name ../../img, as before
        assert "../../img/" in item.read_text()
    check_event(run_get_event(f"{server.url}/latest/catalog.json", tmp_path), tmp_path)


def api_documents(url: str, listed: Sequence[str], collection: str) -> dict[str, bytes]:
    """The answers of a STAC API that lists some of its collections."""
    conforms = ["core", "item-search", "collections"]
    links = [
        {"rel": "self", "href": url},
        {"rel": "root", "href": url},
        {"rel": "data", "href": f"{url}/collections"},
        {"rel": "search", "href": f"{url}/search", "method": "POST", "type": "application/geo+json"},
    ]
    landing = {"type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "api", "links": links}
    landing["conformsTo"] = [f"https://api.stacspec.org/v1.0.0/{name}" for name in conforms]
    box = [-180.0, -90.0, 180.0, 90.0]
    items = [image_item(day, f"{url}/img/{day}.tif", collection=collection) for day in DATES]
    answers: dict[str, Any] = {
        "/": landing,
        "/collections": {"collections": [make_collection(name, box) for name in listed], "links": []},
        f"/collections/{collection}": make_collection(collection, box),
        "/search": {"type": "FeatureCollection", "features": items, "links": []},
    }
    return {path: json.dumps(answer).encode() for path, answer in answers.items()}


def test_collection_that_an_api_does_not_list_is_asked_for(server: FileServer, tmp_path: Path) -> None:
    server.documents = api_documents(server.url, ["a", "b"], "place")
    assert "'c'; it has a, b" in the_error(run_get_event(server.url, tmp_path, "--collection", "c"), tmp_path, 2)
    check_event(run_get_event(server.url, tmp_path, "--collection", "place"), tmp_path)


def test_collection_of_an_api_without_a_list_must_exist(server: FileServer, tmp_path: Path) -> None:
    server.documents = api_documents(server.url, [], "place")
    landing = json.loads(server.documents["/"])
    landing["conformsTo"] = [name for name in landing["conformsTo"] if not name.endswith("collections")]
    landing["links"].append({"rel": "child", "href": f"{server.url}/collections/place"})
    server.documents["/"] = json.dumps(landing).encode()
    message = the_error(run_get_event(server.url, tmp_path, "--collection", "c"), tmp_path, 2)
    assert "has no collection 'c'; it has place" in message
    check_event(run_get_event(server.url, tmp_path, "--collection", "place"), tmp_path)


def test_api_without_addresses_of_collections_lists_them(server: FileServer, tmp_path: Path) -> None:
    server.documents = api_documents(server.url, ["place"], "place")
    del server.documents["/collections/place"]
    check_event(run_get_event(server.url, tmp_path, "--collection", "place"), tmp_path)


# --- Servers that die while images are fetched -----------------------------------------------------------------------
@pytest.fixture(scope="module")
def large_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `first_catalog`, but the images have overviews on which they are measured."""
    folder, side = tmp_path_factory.mktemp("large"), 4 * SIDE
    write_images(folder, side, MANY_DATES)
    extent: dict[str, Any] = {"width": side * PIXEL, "height": side * PIXEL}
    write_static_catalog(folder, [image_item(day, **extent) for day in MANY_DATES])
    return folder


@pytest.fixture
def large_server(large_catalog: Path, tmp_path: Path) -> Iterator[FileServer]:
    with file_server(Path(shutil.copytree(large_catalog, tmp_path / "catalog"))) as server:
        yield server


LARGE_BOX = lonlat_box(ORIGIN, 4 * WIDTH, 4 * WIDTH, inset=2)


def is_fetching(server: FileServer, path: str) -> bool:
    """Whether the last request of an image reaches into its full resolution, which lies behind the overviews."""
    last = re.fullmatch(r"bytes=\d+-(\d+)", server.requests[path][-1])
    if last is None or not path.endswith(".tif"):
        return False
    return int(last[1]) > (server.folder / path.lstrip("/")).stat().st_size * 0.6


def test_server_that_breaks_off_leaves_no_event_and_the_next_run_fetches_the_rest(
    large_server: FileServer, tmp_path: Path
) -> None:
    server, bad = large_server, f"/img/{MONITOR}.tif"  # the last image, so that others are complete before it begins
    server.fault = lambda path: "break" if path == bad and is_fetching(server, path) else None
    for flags in ((), ("--bands", "3,2,1")):
        run = run_get_event(f"{server.url}/catalog.json", tmp_path, *flags, box=LARGE_BOX)
        assert f"S-{MONITOR}/visual" in the_error(run, tmp_path)
        assert "were fetched before" not in run.stderr  # also not those with other bands

    server.fault = lambda _: None
    server.sent.clear()
    run = run_get_event(f"{server.url}/catalog.json", tmp_path, *flags, box=LARGE_BOX)
    assert run.returncode == 0, run.stderr
    assert len(event_files(tmp_path)) == len(MANY_DATES) + 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["3_x"]
    found = re.search(r"(\d) of 6 images were fetched before", run.stderr)
    assert found, run.stderr
    shares = {day: server.sent[f"/img/{day}.tif"] / large_size(server, day) for day in MANY_DATES}
    only_measured = {day for day, share in shares.items() if share < 0.6}
    assert len(only_measured) == int(found[1]) >= 2
    assert MONITOR not in only_measured


def large_size(server: FileServer, day: str) -> int:
    return (server.folder / f"img/{day}.tif").stat().st_size


def test_server_that_dies_leaves_no_event(large_server: FileServer, tmp_path: Path) -> None:
    server = large_server
    dead: list[str] = []

    def fault(path: str) -> str | None:
        if is_fetching(server, path) and not dead:
            dead.append(path)
            server.close()
        return "break" if dead else None

    server.fault = fault
    message = the_error(run_get_event(f"{server.url}/catalog.json", tmp_path, box=LARGE_BOX), tmp_path)
    assert dead
    assert "/visual" in message
    assert "run the same command again" in message


# --- Damaged and unsuitable images -----------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_run_leaves_no_event_and_the_next_run_completes_it(
    large_server: FileServer, tmp_path: Path, number: signal.Signals
) -> None:
    server, reached, resumed = large_server, threading.Event(), threading.Event()

    def fault(path: str) -> None:
        if path == f"/img/{MONITOR}.tif" and is_fetching(server, path):
            reached.set()
            resumed.wait(60)

    server.fault = fault
    arguments = get_event_arguments(f"{server.url}/catalog.json", tmp_path, LARGE_BOX)
    with started("get_event.py", *arguments, **ENVIRONMENT) as run:
        assert reached.wait(60)
        run.signal(number)
        resumed.set()
        messages = run.finish()
        assert run.process.exitcode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in messages
    assert not (tmp_path / "data" / "3_x").exists()
    server.fault = lambda _: None
    done = run_get_event(f"{server.url}/catalog.json", tmp_path, box=LARGE_BOX)
    assert done.returncode == 0, done.stderr
    assert re.search(r"[2-6] of 6 images were fetched before", done.stderr), done.stderr
    assert len(event_files(tmp_path)) == len(MANY_DATES) + 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["3_x"]


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 6 // 10])


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


# --- Hostile and broken items ----------------------------------------------------------------------------------------
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


# --- Credentials -----------------------------------------------------------------------------------------------------
SECRET_FAULTS: dict[str, Callable[[FileServer], object]] = {
    "healthy": lambda server: None,
    "catalog refused": lambda server: setattr(server, "fault", Fault(401, "^/catalog.json")),
    "catalog busy": lambda server: setattr(server, "fault", Fault(503, "^/catalog.json")),
    "catalog breaks off": lambda server: setattr(server, "fault", Fault("break", "^/catalog.json")),
    "catalog is no JSON": lambda server: (server.folder / "catalog.json").write_text("no"),
    "no server": lambda server: server.close(),
    "image refused": lambda server: setattr(server, "fault", Fault(403, r"\.tif$")),
    "image busy": lambda server: setattr(server, "fault", Fault(429, r"\.tif$")),
    "image breaks off": lambda server: setattr(server, "fault", Fault("break", r"\.tif$")),
    "image is none": lambda server: (server.folder / f"img/{BAD_DAY}.tif").write_text("no"),
    "image is truncated": lambda server: cut(server.folder / f"img/{BAD_DAY}.tif"),
    "link is refused": lambda server: add_link(server, f"ftp://user:{SECRETS[0]}@host.org/x?token={SECRETS[1]}"),
    "link is broken": lambda server: add_link(server, f"it's a.json?token={SECRETS[1]}"),
}


def add_link(server: FileServer, href: str) -> None:
    content = json.loads((server.folder / "catalog.json").read_text())
    content["links"].append({"rel": "child", "href": href})
    write_json(server.folder / "catalog.json", content)


@pytest.mark.parametrize("case", SECRET_FAULTS)
def test_credentials_are_shown_nowhere(server: FileServer, tmp_path: Path, case: str) -> None:
    password, token, signature = SECRETS
    write_static_catalog(server.folder, [image_item(day, f"../../img/{day}.tif?sig={signature}") for day in DATES])
    SECRET_FAULTS[case](server)
    address = f"{server.url.replace('//', f'//user:{password}@')}/catalog.json?token={token}"
    log = tmp_path / "data" / "log.txt"
    runs = [run_get_event(address, tmp_path, "--log-file", log)]
    if case == "healthy":
        assert runs[0].returncode == 0, runs[0].stderr
        runs.append(run_get_event(address, tmp_path, "--log-file", log, "--dry-run"))
        assert "event.json" in event_files(tmp_path)
        tags = gdal.Open(str(tmp_path / "data" / "3_x" / "anomaly_20210720.tif")).GetMetadata()
        assert tags["ANOMALYCD_ASSETS"] == f"{server.url}/img/{MONITOR}.tif"
    texts = [run.stdout + run.stderr for run in runs]
    texts += [path.read_bytes().decode("latin-1") for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert len(texts) >= 2
    for text in texts:
        for secret in SECRETS:
            at = text.find(secret)
            assert at < 0, text[max(at - 300, 0) : at + 50]
