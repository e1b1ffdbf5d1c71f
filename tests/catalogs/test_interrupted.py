"""get_event.py when a server, or the run itself, ends while images are fetched."""

import re
import signal
import threading
from pathlib import Path

import pytest

from tests.catalogs.servers import FileServer
from tests.catalogs.small_catalog import (
    ENVIRONMENT,
    LARGE_BOX,
    MANY_DATES,
    MONITOR,
    event_files,
    get_event_arguments,
    run_get_event,
    the_error,
)
from tests.scripts import started


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
