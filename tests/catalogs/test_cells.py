from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalogs.made import write_maxar_catalog
from tests.catalogs.servers import FileServer, file_server
from tests.scripts import run_process

EVENTS = {
    "Quake-23": {
        "A1": {"q0": "2022-05-01"},
        "A2": {"q0": "2022-09-01", "q1": "2022-09-01"},
        "A3": {"q0": "2023-02-07", "q1": "2023-02-07", "q2": "2023-02-07"},
    },
    "Flood-22": {"B1": {"q5": "2022-04-20"}},
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    write_maxar_catalog(tmp_path, EVENTS)
    with file_server(tmp_path) as served:
        yield served


def listed(server: FileServer, *arguments: str, code: int = 0) -> tuple[list[str], str]:
    """Run `--list`; returns the printed lines and stderr."""
    done = run_process("get_event.py", "--list", "--stac", f"{server.url}/catalog.json", *arguments)
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_the_events_of_a_catalog_are_listed(server: FileServer) -> None:
    lines, _ = listed(server)
    assert lines == ["Quake-23  2015-01-01 to ...  The Quake-23", "Flood-22  2015-01-01 to ...  The Flood-22"]


def test_cells_are_listed_by_number_of_dates(server: FileServer) -> None:
    lines, _ = listed(server, "--collection", "Quake-23")
    rows = [line.split() for line in lines[1:-1]]
    assert [row[:4] for row in rows] == [
        ["33/q0", "3", "2022-05-01", "2023-02-07"],
        ["33/q1", "2", "2022-09-01", "2023-02-07"],
        ["33/q2", "1", "2023-02-07", "2023-02-07"],
    ]
    west, south, east, north = map(float, rows[0][4:])
    assert west < east
    assert south < north
    assert lines[-1] == "3 cells: 33% have one date, 33% have 3 or more, 0% have 5 or more"


def test_with_a_date_cells_have_the_dates_on_each_side(server: FileServer) -> None:
    lines, _ = listed(server, "--collection", "Quake-23", "--date", "2023-02-06")
    assert [line.split()[:4] for line in lines[1:-1]] == [
        ["33/q0", "3", "2", "1"],
        ["33/q1", "2", "1", "1"],
        ["33/q2", "1", "0", "1"],
    ]


def test_items_of_other_collections_are_not_read(server: FileServer) -> None:
    listed(server, "--collection", "Quake-23")
    assert not [path for path in server.requests if "/Flood-22/ard" in path]


def test_an_unknown_collection_is_named(server: FileServer) -> None:
    _, message = listed(server, "--collection", "Quake-24", code=2)
    assert "no items in a collection 'Quake-24'" in message
