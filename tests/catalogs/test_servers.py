"""get_event.py against servers that fail, are not trusted, or move documents: a whole event, or a named error."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.script import CERTIFICATES
from tests.catalogs.made import make_collection
from tests.catalogs.servers import FileServer, file_server
from tests.catalogs.small_catalog import (
    ATTEMPTS,
    BAD_DAY,
    BAD_FILE,
    BOX,
    DATES,
    ENVIRONMENT,
    MONITOR,
    Fault,
    check_event,
    check_left_out,
    get_event_arguments,
    image_item,
    run_get_event,
    the_error,
    warnings_of,
)
from tests.scripts import run_process


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
