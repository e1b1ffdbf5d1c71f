"""get_event.py shows no password, token or signature of an address, anywhere."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from osgeo import gdal

from tests.catalogs.made import write_json, write_static_catalog
from tests.catalogs.servers import FileServer
from tests.catalogs.small_catalog import BAD_DAY, DATES, MONITOR, Fault, cut, event_files, image_item, run_get_event

SECRETS = ("password-1", "token-2", "signature-3")
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
