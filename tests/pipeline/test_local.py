"""Runs in one process: what happens at once, and what happens to the other events when one fails."""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import run
from cli.progress import Summary, follow_run
from pipeline import dispatch, local
from pipeline.local import run_events_here
from pipeline.stage import Stage, StageProgress, StageRequest, advance, event_locks
from pipeline.stage1 import Stage1
from pipeline.stage2 import Stage2
from pipeline.window_store import WindowStore
from sam.engine import SamEngine
from sam.weights import SamIdentity
from tests.scripts import CONTROL
from utils import EventError, UsageError, list_events

pytestmark = pytest.mark.usefixtures("few_points", "one_thread")

NAMES = ("0_a", "0_b", "0_c", "0_d")
PATIENCE = 60  # seconds; a wait that fails ends the test


@pytest.fixture
def events(small_events: Path, tmp_path: Path) -> Path:
    """A data root with four events of one window per stage."""
    for name in NAMES:
        shutil.copytree(small_events / CONTROL, tmp_path / "data" / name)
    return tmp_path / "data"


def run_events(data: Path, engine: SamEngine, load_engine: Callable[[], SamEngine] | None = None) -> Summary:
    root = data.parent
    roots = ["--stage1-root", str(root / "stage1"), "--stage2-root", str(root / "stage2")]
    args = run.parse_arguments([*roots, "--data-root", str(data)])
    listing = list_events(data)
    with follow_run("both stages", listing, lambda _: 2) as progress:
        plan = lambda event: run.plan(event, args)  # noqa: E731
        run_events_here(listing, plan, SamIdentity({}, "weights"), load_engine or (lambda: engine), progress)
    return progress.summary


@pytest.fixture(autouse=True)
def threads_before() -> set[threading.Thread]:
    """Threads of tests that ran before in this process."""
    return set(threading.enumerate())


def assert_nothing_is_left(data: Path, threads_before: set[threading.Thread]) -> None:
    """Assert that no lock, store or temporary file is left, and no thread."""
    assert not list(data.parent.glob("stage*/**/.*"))
    left = {thread.name.split("_")[0] for thread in set(threading.enumerate()) - threads_before}
    assert not left & {"read", "write", "step", "dispatch"}


def before(monkeypatch: pytest.MonkeyPatch, stage: type[Stage], method: str, act: Callable[[str], object]) -> None:
    """Call `act` with the event's name before a method of a stage."""
    original = getattr(stage, method)

    def replacement(self: Stage, *arguments: Any) -> Any:
        act(self.event.name)
        return original(self, *arguments)

    monkeypatch.setattr(stage, method, replacement)


def test_events_are_opened_and_maps_written_while_others_are_computed(
    monkeypatch: pytest.MonkeyPatch, events: Path, tiny_engine: SamEngine, threads_before: set[threading.Thread]
) -> None:
    opened, written = ({name: threading.Event() for name in NAMES} for _ in range(2))

    def note(finished: Stage | None, requests: Sequence[StageRequest], sam: SamIdentity) -> StageProgress:
        progress = advance(finished, requests, sam)
        event = finished.event if finished else requests[0].event
        (written if finished else opened)[event.name].set()
        return progress

    def wait_for_others(name: str) -> None:
        if name == NAMES[0]:
            assert opened[NAMES[1]].wait(PATIENCE)
        if name == NAMES[1]:
            assert written[NAMES[0]].wait(PATIENCE)

    monkeypatch.setattr(local, "advance", note)
    before(monkeypatch, Stage1, "encode", wait_for_others)
    assert run_events(events, tiny_engine).done == list(NAMES)
    assert_nothing_is_left(events, threads_before)


def test_two_events_are_in_hand(monkeypatch: pytest.MonkeyPatch, events: Path, tiny_engine: SamEngine) -> None:
    held: list[int] = [0]

    @contextmanager
    def count(requests: Sequence[StageRequest]) -> Iterator[None]:
        with event_locks(requests):
            held.append(held[-1] + 1)
            yield
        held.append(held[-1] - 1)

    monkeypatch.setattr(dispatch, "event_locks", count)
    assert run_events(events, tiny_engine).done == list(NAMES)
    assert max(held) == 2
    assert held[-1] == 0


@pytest.mark.parametrize("method", ["read", "encode", "write_outputs"])
def test_an_event_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
    events: Path,
    tiny_engine: SamEngine,
    method: str,
    threads_before: set[threading.Thread],
) -> None:
    def fail(name: str) -> None:
        if name == NAMES[1]:
            raise EventError("a reason")

    before(monkeypatch, Stage2, method, fail)
    summary = run_events(events, tiny_engine)
    assert summary.failed == [(NAMES[1], "a reason")]
    assert summary.done == [NAMES[0], *NAMES[2:]]
    if method != "write_outputs":  # then the finished windows are kept for the next run
        assert_nothing_is_left(events, threads_before)


def test_an_event_whose_windows_cannot_be_stored_fails_alone(
    monkeypatch: pytest.MonkeyPatch, events: Path, tiny_engine: SamEngine, threads_before: set[threading.Thread]
) -> None:
    write = WindowStore.write

    def fill_disk(store: WindowStore, *arguments: Any) -> None:
        if NAMES[0] in str(store.folder):
            raise OSError(28, "No space left on device")
        write(store, *arguments)

    monkeypatch.setattr(WindowStore, "write", fill_disk)
    summary = run_events(events, tiny_engine)
    assert [name for name, _ in summary.failed] == [NAMES[0]]
    assert sorted(summary.done) == list(NAMES[1:])
    assert_nothing_is_left(events, threads_before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, UsageError])
def test_a_run_that_ends_early_leaves_no_locks(
    monkeypatch: pytest.MonkeyPatch, events: Path, tiny_engine: SamEngine, error: type[BaseException]
) -> None:
    def stop(name: str) -> None:
        if name == NAMES[1]:
            raise error

    before(monkeypatch, Stage1, "encode", stop)
    with pytest.raises(error):
        run_events(events, tiny_engine)
    assert not list(events.parent.glob("stage*/*/.lock"))
    assert not list(events.parent.glob(f"stage*/{NAMES[1]}"))  # while the window of the first event is kept


def test_an_impossible_request_is_found_while_an_event_is_opened(
    monkeypatch: pytest.MonkeyPatch, events: Path, tiny_engine: SamEngine, threads_before: set[threading.Thread]
) -> None:
    def refuse(*_: object) -> StageProgress:
        raise UsageError("impossible")

    monkeypatch.setattr(local, "advance", refuse)
    with pytest.raises(UsageError, match="impossible"):
        run_events(events, tiny_engine)
    assert_nothing_is_left(events, threads_before)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_events_that_end_at_once_stop_no_other(
    events: Path, tiny_engine: SamEngine, count: int, threads_before: set[threading.Thread]
) -> None:
    for name in NAMES[:count]:
        (events / name / "normal_20190620.tif").write_bytes(b"no image")
    summary = run_events(events, tiny_engine)
    assert [name for name, _ in summary.failed] == list(NAMES[:count])
    assert summary.done == list(NAMES[count:])
    assert_nothing_is_left(events, threads_before)


def test_events_fail_if_the_model_cannot_be_loaded(
    events: Path, tiny_engine: SamEngine, threads_before: set[threading.Thread]
) -> None:
    def fail() -> SamEngine:
        raise RuntimeError("the device fell off the bus")

    summary = run_events(events, tiny_engine, fail)
    assert [name for name, _ in summary.failed] == list(NAMES)
    assert_nothing_is_left(events, threads_before)


def test_a_run_without_events_ends(tmp_path: Path, tiny_engine: SamEngine) -> None:
    (tmp_path / "data" / "0_empty").mkdir(parents=True)
    listing = list_events(tmp_path / "data")
    assert not listing.events
    with follow_run("both stages", listing, lambda _: 2) as progress:
        run_events_here(listing, lambda _: [], SamIdentity({}, ""), lambda: tiny_engine, progress)
