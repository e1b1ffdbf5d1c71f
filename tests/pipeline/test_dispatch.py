"""The dispatcher on a fake pool: the test chooses which worker answers next, and its answer."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.event_lock import event_lock
from cli.progress import Summary, follow_run
from cli.script import Interrupted
from img_io import ImageOptions
from pipeline.dispatch import MOST_DEATHS, MOST_ERRORS, Answer, Dispatcher, Failure, WorkerLost, WorkerReady
from pipeline.stage import Stage, StageRequest, advance, count_windows
from pipeline.stage2 import Stage2Settings
from rasters.maps import MapState
from sam.weights import SamIdentity
from tests.helpers import property_test
from utils import Event, Listing, UsageError, Window, tile

NOT_THERE = Failure("x.tif: is not there", "EventError: x.tif: is not there")
DEFECT = Failure("unexpected KeyError: 'x' (use --log-file to record the traceback)", "KeyError: 'x'", True)
DEPTH = 2  # windows per worker


# --- Fakes -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FakeRequest(StageRequest):
    number: int  # of the stage
    windows: tuple[Window, ...]
    already: Set[Window] = frozenset()  # finished by an earlier run
    reason: str | None = None  # why the stage is skipped
    failure: Failure | None = None  # raised when the stage is opened

    def tile_event(self) -> list[Window]:
        return list(self.windows)

    NAME = "stage"

    def images_per_window(self) -> tuple[int, int]:
        return 1, 0

    def open(self, sam: SamIdentity) -> Stage:
        if self.failure is not None:
            raise OpeningFailedError(self.failure)
        return cast(Stage, FakeStage(self))


class OpeningFailedError(Exception):
    """An opened stage has a failure."""


class FakeStage:
    """The parts of an opened stage that the dispatcher and its steps use; it is its own store."""

    def __init__(self, plan: FakeRequest) -> None:
        self.plan = self.request = plan
        self.windows, self.folder, self.SKIP_REASON = plan.windows, plan.folder, plan.reason
        self.was_removed_if_empty = False

    def can_be_skipped(self) -> bool:
        return self.plan.reason is not None

    def complete_outputs(self) -> None: ...

    def prepare(self, scratch: Path) -> "FakeStage":
        return self

    def state(self) -> MapState:
        return MapState.OUTDATED

    def write_outputs(self, store: "FakeStage") -> None: ...

    def store(self) -> "FakeStage":
        return self

    def removed_if_empty(self) -> AbstractContextManager[None]:
        return nullcontext()

    def begin(self) -> Set[Window]:
        return self.plan.already

    def remove(self) -> None: ...

    def remove_if_empty(self) -> None:
        self.was_removed_if_empty = True


class Sent(NamedTuple):
    """A window sent to a worker."""

    worker: str
    event: str
    stage: int
    window: Window

    @property
    def window_key(self) -> tuple[str, int, Window]:
        """Event, stage and window, without the worker."""
        return self[1:]


DONE = None
Reply = Failure | str | None  # to a window; a string means that its worker is lost, with this reason


class FakePool:
    """A pool that answers windows in the order in which they were sent; see dispatch.Pool."""

    depth = DEPTH
    most_events = 100

    def __init__(
        self,
        *workers: str,
        reply: Callable[[Sent], Reply] = lambda _: DONE,
        replaced: bool = False,
        slow: Callable[[Sent], bool] = lambda _: False,
    ) -> None:
        """`workers`: names, which begin with the letter of their node. `replaced`: a lost worker is replaced.

        `slow`: whether a window is answered after all others.
        """
        self._joining = list(workers)
        self._reply, self._replaced, self._slow = reply, replaced, slow
        self._names = len(workers)
        self._tickets = 0
        self._waits = 0
        self.workers: list[str] = []
        self.steps: dict[int, tuple[FakeStage | None, Sequence[Any]]] = {}  # in progress, by ticket
        self.calls: dict[int, Sent] = {}  # windows in progress, by ticket
        self.sent: list[Sent] = []  # all windows, in order
        self.held_before: list[list[Sent]] = []  # for each sent window, the other windows of its worker
        self.computed: list[Sent] = []
        self.lost: list[tuple[str, list[Sent]]] = []  # workers, with their windows
        self.retired: list[str] = []
        self.prepared: dict[int, FakeStage] = {}  # by key
        self.forgotten: set[int] = set()
        self.kept_features: set[bool] = set()

    # Called by the dispatcher.
    def compute(self, worker: str, key: int, prepared: Stage, window: Window, keep_features: bool) -> int:
        assert isinstance(prepared, FakeStage)
        assert self.prepared.setdefault(key, prepared) is prepared
        assert key not in self.forgotten
        assert worker in self.workers
        sent = Sent(worker, prepared.plan.event.name, prepared.plan.number, window)
        assert sent.window_key not in [other.window_key for other in self.calls.values()]
        self.held_before.append(self.held(worker))
        assert len(self.held_before[-1]) < DEPTH
        self.sent.append(sent)
        self.kept_features.add(keep_features)
        self._tickets += 1
        self.calls[self._tickets] = sent
        return self._tickets

    def advance(self, finished: Stage | None, stages: Sequence[StageRequest]) -> int:
        if finished is not None:
            assert isinstance(finished, FakeStage)
            plan = finished.plan
            computed = {window for _, event, stage, window in self.computed if (event, stage) == key_of(plan)}
            assert computed | plan.already == set(plan.windows)
        self._tickets += 1
        self.steps[self._tickets] = finished, stages
        return self._tickets

    def forget(self, key: int, is_last: bool) -> None:
        self.forgotten.add(key)

    def retire(self, worker: str) -> None:
        self.retired.append(worker)
        if worker in self.workers:
            self.drop(worker)

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        self.assert_not_stuck()
        if self._joining:
            joined, self._joining = self._joining, []
            return [self.join(name) for name in joined]
        if self.steps:
            return [self.take_step(next(iter(self.steps)))]
        if not self.calls:
            raise UsageError("no worker can be started")
        ticket = min(self.calls, key=lambda ticket: (self._slow(self.calls[ticket]), ticket))
        reply = self._reply(self.calls[ticket])
        return [self.lose(self.calls[ticket].worker, reply) if isinstance(reply, str) else self.answer(ticket, reply)]

    # Events of the simulation.
    def assert_not_stuck(self) -> None:
        assert self.calls or self.steps or not self.workers, "workers and the run wait for each other"
        self._waits += 1
        assert self._waits < 1000, "the run does not end"

    def held(self, worker: str) -> list[Sent]:
        return [sent for sent in self.calls.values() if sent.worker == worker]

    def join(self, name: str) -> WorkerReady:
        self.workers.append(name)
        return WorkerReady(name, name[0])

    def lose(self, name: str, reason: str) -> WorkerLost:
        self.drop(name)
        return WorkerLost(name, reason)

    def drop(self, name: str) -> None:
        self.workers.remove(name)
        self.lost.append((name, self.held(name)))
        self.calls = {ticket: sent for ticket, sent in self.calls.items() if sent.worker != name}
        if self._replaced:
            self._names += 1
            self._joining.append(f"{name[0]}{self._names}")

    def answer(self, ticket: int, failure: Failure | None) -> Answer:
        sent = self.calls[ticket]
        if failure is None or not failure.ends_worker:
            del self.calls[ticket]  # else the dispatcher retires the worker and its windows
        if failure is None:
            self.computed.append(sent)
        return Answer(ticket, failure=failure)

    def take_step(self, ticket: int) -> Answer:
        finished, stages = self.steps.pop(ticket)
        try:
            return Answer(ticket, advance(cast("Stage | None", finished), stages, SamIdentity({}, "")))
        except OpeningFailedError as error:
            return Answer(ticket, failure=error.args[0])


def key_of(plan: FakeRequest) -> tuple[str, int]:
    return plan.event.name, plan.number


def stages_of(root: Path, name: str, *windows: int) -> list[FakeRequest]:
    """The stages of an event, with the given numbers of windows side by side, 10 pixels wide."""
    event = Event(root / "data" / name, Path("m.tif"), (Path("n.tif"),), None)
    tiled = [tuple(tile(10, 10 * count, 10)) for count in windows]
    folders = [root / f"stage{number}" / name for number in range(1, len(tiled) + 1)]
    return [
        FakeRequest(event, folder, ImageOptions(), True, Stage2Settings(), number, of_stage)
        for number, (folder, of_stage) in enumerate(zip(folders, tiled, strict=True), 1)
    ]


def plans_of(root: Path, **windows: Sequence[int]) -> dict[str, list[FakeRequest]]:
    """The stages of several events: `e3=(2, 1)` has 2 windows in stage 1 and 1 in stage 2."""
    return {name: stages_of(root, name, *counts) for name, counts in windows.items()}


def run(pool: FakePool, plans: Mapping[str, Sequence[FakeRequest]]) -> Summary:
    """Run all stages of all events, and check that nothing is left in the pool or on the disk."""
    listing = Listing([stages[0].event for stages in plans.values()])
    folders = {stage.folder for stages in plans.values() for stage in stages if not stage.folder.exists()}

    def plan(event: Event) -> Sequence[FakeRequest]:
        return plans[event.name]

    try:
        with follow_run("a run", listing, count_windows(plan)) as progress:
            Dispatcher(pool, listing.events, plan, progress).run()
    finally:
        assert not any(folder.exists() for folder in folders)  # a folder that held only the lock is removed
        assert pool.forgotten >= set(pool.prepared)
    return progress.summary


def all_windows(plans: Mapping[str, Sequence[FakeRequest]]) -> Counter[tuple[str, int, Window]]:
    """Every window of every event, with count 1."""
    stages = [stage for stages in plans.values() for stage in stages]
    return Counter((*key_of(stage), window) for stage in stages for window in stage.windows)


def index_of(window: Window) -> int:
    """Index of a window within its event."""
    return window.x // 10


# --- Order -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [["a1"], ["a1", "a2", "b3"], [f"a{count}" for count in range(40)]])
def test_every_window_is_computed_once_without_failures(tmp_path: Path, workers: list[str]) -> None:
    plans = plans_of(tmp_path, e1=(2, 1), e2=(7, 9), e3=(1, 4), e4=(30, 30))
    pool = FakePool(*workers)
    summary = run(pool, plans)
    assert sorted(summary.done) == ["e1", "e2", "e3", "e4"]
    assert Counter(sent.window_key for sent in pool.sent) == all_windows(plans)
    assert pool.kept_features == {True}


def test_features_are_kept_only_if_another_stage_follows(tmp_path: Path) -> None:
    pool = FakePool("a1")
    run(pool, plans_of(tmp_path, e1=(2,)))
    assert pool.kept_features == {False}


def test_events_are_begun_in_the_given_order(tmp_path: Path) -> None:
    pool = FakePool("a1", "a2")
    run(pool, plans_of(tmp_path, large=(9,), small=(2,), medium=(5,)))
    assert [sent.event for sent in pool.sent] == 9 * ["large"] + 2 * ["small"] + 5 * ["medium"]
    assert [index_of(sent.window) for sent in pool.sent if sent.event == "large"] == list(range(9))


def test_number_of_open_events_is_limited(tmp_path: Path) -> None:
    begun: list[int] = []

    def reply(_: Sent) -> Reply:
        begun.append(len(list((tmp_path / "stage1").iterdir())))
        return DONE

    run(FakePool("a1", reply=reply), plans_of(tmp_path, **{f"e{count}": (4,) for count in range(10)}))
    assert max(begun) <= 3  # two windows at the worker, four wait


def test_workers_get_the_same_windows_in_both_stages(tmp_path: Path) -> None:
    pool = FakePool("a1", "a2", "b3")
    run(pool, plans_of(tmp_path, e1=(12, 12)))
    first, second = ({sent.window: sent.worker for sent in pool.sent if sent.stage == stage} for stage in (1, 2))
    assert first == second
    assert set(Counter(first.values()).values()) == {4}


def test_idle_workers_take_windows_from_the_end_of_another_queue(tmp_path: Path) -> None:
    pool = FakePool("a1", "a2", slow=lambda sent: sent.stage == 2 and sent.worker == "a2")
    run(pool, plans_of(tmp_path, e1=(12, 12)))
    own = [index_of(sent.window) for sent in pool.sent if sent.stage == 1 and sent.worker == "a2"]
    by_owner = [index_of(sent.window) for sent in pool.sent if sent.stage == 2 and sent.worker == "a2"]
    taken = [index_of(sent.window) for sent in pool.sent if sent.stage == 2 and sent.worker == "a1"][-4:]
    assert own == [1, 3, 5, 7, 9, 11]
    assert by_owner == [1, 3]  # the first DEPTH windows, sent at the beginning
    assert taken == [11, 9, 7, 5]


def test_a_worker_that_joins_late_gets_windows(tmp_path: Path) -> None:
    pool = FakePool("a1")

    def reply(sent: Sent) -> Reply:
        if sent.stage == 2 and index_of(sent.window) == 0:
            pool._joining.append("b2")
        return DONE

    pool._reply = reply
    run(pool, plans_of(tmp_path, e1=(12, 12)))
    assert sum(sent.worker == "b2" for sent in pool.sent) == 5


@pytest.mark.parametrize(("windows", "maximum"), [(3, 1), (6, 1), (7, 2), (20, 2)])
def test_no_worker_gets_a_second_window_if_few_are_left(tmp_path: Path, windows: int, maximum: int) -> None:
    pool = FakePool("a1", "a2", "a3")
    run(pool, plans_of(tmp_path, e1=(windows,)))
    assert max(len(others) + 1 for others in pool.held_before) == maximum


# --- Lost workers ----------------------------------------------------------------------------------------------------
def test_windows_of_a_lost_worker_are_reassigned(tmp_path: Path) -> None:
    plans = plans_of(tmp_path, e1=(8, 8))
    pool = FakePool("a1", "a2", reply=lambda sent: "power cut" if sent.worker == "a1" and sent.stage == 2 else DONE)
    summary = run(pool, plans)
    assert summary.done == ["e1"]
    assert pool.workers == ["a2"]
    assert len(pool.lost[0][1]) == DEPTH
    assert Counter(sent.window_key for sent in pool.computed) == all_windows(plans)


def test_a_window_that_kills_its_workers_fails_only_its_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "anomalycd")

    def reply(sent: Sent) -> Reply:
        return "out of memory" if sent.event == "e1" and index_of(sent.window) == 2 else DONE

    plans = plans_of(tmp_path, e1=(9,), e2=(5,))
    pool = FakePool("a1", "a2", reply=reply, replaced=True)
    summary = run(pool, plans)
    assert summary.done == ["e2"]
    assert summary.failed == [("e1", "3 workers were lost with its window of 10 x 10 at (20, 0): out of memory")]
    assert len(pool.lost) == MOST_DEATHS == 3
    assert Counter(sent.window_key for sent in pool.computed if sent.event == "e2") == all_windows({"e2": plans["e2"]})
    assert "Traceback" not in caplog.text
    assert "raised by:\nout of memory" in caplog.text


def test_a_window_that_may_have_killed_a_worker_is_computed_alone(tmp_path: Path) -> None:
    plans = plans_of(tmp_path, e1=(12,))
    pool = FakePool("a1", "a2", replaced=True)

    def reply(sent: Sent) -> Reply:
        kills = index_of(sent.window) == 2 and len(pool.lost) < MOST_DEATHS - 1
        return "out of memory" if kills else DONE

    pool._reply = reply
    assert run(pool, plans).done == ["e1"]
    assert [[index_of(sent.window) for sent in had] for _, had in pool.lost] == [[2, 4], [2]]  # 4 had the same worker
    places = [index_of(sent.window) for sent in pool.sent]
    places_held = [[index_of(other.window) for other in others] for others in pool.held_before]
    again = places.index(2, places.index(2) + 1)
    assert sorted(set(places[again:]) & {2, 4}) == [2, 4]
    for place, others in zip(places[again:], places_held[again:], strict=True):
        assert not {2, 4} & set(others)
        assert place not in (2, 4) or not others


def test_a_defect_retires_its_worker(tmp_path: Path) -> None:
    plans = plans_of(tmp_path, e1=(8,))
    pool = FakePool("a1", "a2", reply=lambda sent: DEFECT if sent.worker == "a1" else DONE)
    assert run(pool, plans).done == ["e1"]
    assert pool.retired == ["a1"]
    assert Counter(sent.window_key for sent in pool.computed) == all_windows(plans)
    assert {sent.worker for sent in pool.computed} == {"a2"}


def test_a_repeated_defect_fails_its_event_and_logs_the_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "anomalycd")
    pool = FakePool("a1", reply=lambda sent: DEFECT if sent.event == "e2" else DONE, replaced=True)
    summary = run(pool, plans_of(tmp_path, e1=(3,), e2=(1,)))
    assert summary.done == ["e1"]
    assert summary.failed == [
        ("e2", f"3 workers were lost with its window of 10 x 10 at (0, 0): {DEFECT.message}"),
    ]
    assert pool.retired == ["a1", "a2", "a3"]
    assert f"raised by:\n{DEFECT.trace}" in caplog.text


def test_a_worker_that_dies_after_a_defect_is_lost_once(tmp_path: Path) -> None:
    class DyingWorkerPool(FakePool):
        def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
            messages = super().wait()
            if isinstance(messages[0], Answer) and messages[0].failure is not None:
                messages.append(self.lose("a1", "it died"))
            return messages

    pool = DyingWorkerPool("a1", "a2", reply=lambda sent: DEFECT if sent.worker == "a1" else DONE)
    assert run(pool, plans_of(tmp_path, e1=(8,))).done == ["e1"]


# --- Missing files ---------------------------------------------------------------------------------------------------
def test_an_error_fails_its_event_at_once_on_a_single_machine(tmp_path: Path) -> None:
    def reply(sent: Sent) -> Reply:
        return NOT_THERE if sent.event == "e1" and index_of(sent.window) == 1 else DONE

    pool = FakePool("a1", "a2", reply=reply)
    summary = run(pool, plans_of(tmp_path, e1=(30, 30), e2=(5, 5)))
    assert summary.failed == [("e1", NOT_THERE.message)]
    assert summary.done == ["e2"]
    assert summary.exit_code == 1
    assert sum(sent.event == "e1" for sent in pool.sent) == 5  # the windows sent before the failing one is answered
    assert not pool.lost
    assert [prepared.was_removed_if_empty for prepared in pool.prepared.values()] == [True, False, False]


def test_a_failed_window_is_retried_on_another_machine(tmp_path: Path) -> None:
    plans = plans_of(tmp_path, e1=(8, 8))
    pool = FakePool("a1", "a2", "b3", reply=lambda sent: DONE if sent.worker == "b3" else NOT_THERE)
    assert run(pool, plans).done == ["e1"]
    assert Counter(sent.window_key for sent in pool.computed) == all_windows(plans)
    assert max(Counter(sent.window_key for sent in pool.sent).values()) == 2  # not on both a1 and a2


def test_number_of_retries_is_limited(tmp_path: Path) -> None:
    pool = FakePool("a1", "b2", "c3", "d4", "e5", reply=lambda _: NOT_THERE)
    assert run(pool, plans_of(tmp_path, e1=(1,))).failed == [("e1", NOT_THERE.message)]
    assert len({sent.worker for sent in pool.sent}) == len(pool.sent) == MOST_ERRORS


@pytest.mark.parametrize("windows", [1, 6])  # the other machine holds the window, or has no room for it yet
@pytest.mark.parametrize("found", [False, True])
def test_a_window_is_retried_on_the_same_machine_if_the_others_are_lost(
    tmp_path: Path, windows: int, found: bool
) -> None:
    tries: list[str] = []

    def reply(sent: Sent) -> Reply:
        if sent.worker == "b2":
            return "power cut"
        if index_of(sent.window):
            return DONE
        tries.append(sent.worker)
        return DONE if found and len(tries) == 2 else NOT_THERE

    summary = run(FakePool("a1", "b2", reply=reply), plans_of(tmp_path, e1=(windows,)))
    assert tries == ["a1", "a1"]
    assert summary.done == (["e1"] if found else [])
    assert summary.failed == ([] if found else [("e1", NOT_THERE.message)])


# --- Events ----------------------------------------------------------------------------------------------------------
def test_an_event_locked_by_another_run_is_skipped(tmp_path: Path) -> None:
    plans = plans_of(tmp_path, e1=(9, 9), e2=(2, 2))
    with event_lock(plans["e1"][1].folder):
        summary = run(FakePool("a1"), plans)
    assert summary.done == ["e2"]
    [(name, reason)] = summary.skipped
    assert name == "e1"
    assert reason.startswith(f"{plans['e1'][1].folder}: is locked by process ")


def test_an_event_whose_folder_cannot_be_made_fails(tmp_path: Path) -> None:
    plans = plans_of(tmp_path, e1=(9,), e2=(2,))
    blocked = replace(plans["e1"][0], folder=tmp_path / "file" / "e1")
    (tmp_path / "file").touch()
    summary = run(FakePool("a1"), plans | {"e1": [blocked]})
    assert summary.done == ["e2"]
    assert [name for name, _ in summary.failed] == ["e1"]
    assert "Not a directory" in summary.failed[0][1]


def test_an_event_whose_folder_disappears_does_not_stop_the_others(tmp_path: Path) -> None:
    plans = plans_of(tmp_path, e1=(9,), e2=(2,))

    def reply(sent: Sent) -> Reply:
        if sent.event == "e2":
            return DONE
        shutil.rmtree(plans["e1"][0].folder, ignore_errors=True)
        return NOT_THERE

    summary = run(FakePool("a1", reply=reply), plans)
    assert summary.failed == [("e1", NOT_THERE.message)]
    assert summary.done == ["e2"]


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("failure", [NOT_THERE, DEFECT])
def test_a_failed_step_fails_its_event(tmp_path: Path, failing: int, failure: Failure) -> None:
    plans = plans_of(tmp_path, e1=(4, 4), e2=(2, 2), e3=(1, 1))
    plans["e1"][failing] = replace(plans["e1"][failing], failure=failure)
    pool = FakePool("a1", reply=lambda _: DONE)
    summary = run(pool, plans)
    assert summary.failed == [("e1", failure.message)]
    assert sorted(summary.done) == ["e2", "e3"]
    assert not pool.lost
    assert sum(sent.event == "e1" for sent in pool.sent) == 4 * failing


def test_an_event_is_skipped_if_all_its_stages_are(tmp_path: Path) -> None:
    plans = plans_of(tmp_path, e1=(4, 4), e2=(2, 2), e3=(1, 1))
    maps = ("its change map exists", "its anomaly map exists")
    plans["e1"] = [replace(stage, reason=reason) for stage, reason in zip(plans["e1"], maps, strict=True)]
    plans["e2"][0] = replace(plans["e2"][0], reason=maps[0])
    pool = FakePool("a1")
    summary = run(pool, plans)
    assert summary.skipped == [("e1", "its change map exists and its anomaly map exists")]
    assert sorted(summary.done) == ["e2", "e3"]
    assert {(sent.event, sent.stage) for sent in pool.sent} == {("e2", 2), ("e3", 1), ("e3", 2)}


def test_windows_of_an_earlier_run_count_as_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: Sent) -> Reply:
        raise Interrupted(15)

    [stage] = stages_of(tmp_path, "e1", 5)
    stage = replace(stage, already=set(stage.windows[:3]))
    with pytest.raises(Interrupted):
        run(FakePool("a1", reply=interrupt), {"e1": [stage]})
    assert "3/5" in capsys.readouterr().err
    pool = FakePool("a1")
    assert run(pool, {"e1": [stage]}).done == ["e1"]
    assert [sent.window for sent in pool.sent] == list(stage.windows[3:])
    assert "5/5" in capsys.readouterr().err


@pytest.mark.parametrize("error", [Interrupted(2), UsageError("no worker can be started")])
def test_an_interrupted_run_releases_locks_and_names_unfinished_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def reply(sent: Sent) -> Reply:
        if sent.event == "e2":
            raise error
        return DONE

    plans = plans_of(tmp_path, e1=(6,), e2=(5,), e3=(4,))
    pool = FakePool("a1", reply=reply)
    with pytest.raises(type(error)):
        run(pool, plans)  # also checks that the locks are removed
    assert any(line.startswith("a run: 1 done, 0 skipped, 0 failed, 2 not finished in ") for line in caplog.messages)
    assert caplog.messages[-2:] == ["  not finished e2", "  not finished e3"]
    assert all(prepared.was_removed_if_empty for prepared in pool.prepared.values() if prepared.plan.event.name != "e1")
    for stages in plans.values():
        with event_lock(stages[0].folder):
            pass


# --- Random faults ---------------------------------------------------------------------------------------------------
class RandomFaultPool(FakePool):
    """A pool with random answers and a limited number of random faults, several at a time."""

    def __init__(self, draw: Callable[[st.SearchStrategy], Any], nodes: str, maximum: int, faults: int) -> None:
        """`maximum`: number of workers at a time."""
        super().__init__()
        self._draw, self._nodes, self._maximum, self._faults = draw, nodes, maximum, faults
        self.deaths: Counter[tuple[str, int, Window]] = Counter()
        self.failing: set[str] = set()  # events with an error

    def wait(self) -> list[WorkerReady | WorkerLost | Answer]:
        self.assert_not_stuck()
        self._dying: set[str] = set()  # workers whose defect has not been returned to the dispatcher yet
        return [message for _ in range(self._draw(st.integers(1, 3))) for message in self._draw_message()]

    def _draw_message(self) -> list[WorkerReady | WorkerLost | Answer]:
        calls = [ticket for ticket, sent in self.calls.items() if sent.worker not in self._dying]
        possible = {
            self._join: len(self.workers) < self._maximum,
            self._succeed: calls,
            self._take_step: self.steps,
            self._lose: self.workers and self._faults,
            self._answer_error: calls and self._faults,
            self._answer_defect: calls and self._faults,
            self._fail_step: self.steps and self._faults,
        }
        names = [action for action, can_happen in possible.items() if can_happen]
        if not names:
            return []
        action = self._draw(st.sampled_from(names))
        self._faults -= action in list(possible)[3:]
        return [action(calls)]

    def _join(self, _: list[int]) -> WorkerReady:
        self._names += 1
        return self.join(f"{self._draw(st.sampled_from(self._nodes))}{self._names}")

    def _succeed(self, calls: list[int]) -> Answer:
        return self.answer(self._draw(st.sampled_from(calls)), DONE)

    def _take_step(self, _: list[int]) -> Answer:
        return self.take_step(self._draw(st.sampled_from(list(self.steps))))

    def _lose(self, _: list[int]) -> WorkerLost:
        worker = self._draw(st.sampled_from(self.workers))
        if worker not in self._dying:
            self._count_deaths(worker)
        return self.lose(worker, "power cut")

    def _answer_error(self, calls: list[int]) -> Answer:
        ticket = self._draw(st.sampled_from(calls))
        self.failing.add(self.calls[ticket].event)
        return self.answer(ticket, NOT_THERE)

    def _answer_defect(self, calls: list[int]) -> Answer:
        ticket = self._draw(st.sampled_from(calls))
        self._dying.add(self.calls[ticket].worker)
        self._count_deaths(self.calls[ticket].worker)
        return self.answer(ticket, DEFECT)

    def _fail_step(self, _: list[int]) -> Answer:
        ticket = self._draw(st.sampled_from(list(self.steps)))
        finished, stages = self.steps.pop(ticket)
        self.failing.add((stages[0] if finished is None else finished.plan).event.name)
        return Answer(ticket, failure=self._draw(st.sampled_from([NOT_THERE, DEFECT])))

    def _count_deaths(self, worker: str) -> None:
        self.deaths.update(sent.window_key for sent in self.held(worker))


@property_test
@given(
    data=st.data(),
    windows=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=2), min_size=1, max_size=4),
    nodes=st.sampled_from(["a", "ab", "abcd"]),
    maximum=st.integers(1, 5),
    faults=st.integers(0, 30),
)
def test_every_run_ends_under_random_faults(
    data: st.DataObject, windows: list[list[int]], nodes: str, maximum: int, faults: int
) -> None:
    pool = RandomFaultPool(data.draw, nodes, maximum, faults)
    with tempfile.TemporaryDirectory() as root:
        plans = plans_of(Path(root), **{f"e{count}": counts for count, counts in enumerate(windows)})
        summary = run(pool, plans)  # FakePool.compute checks that no worker has more than DEPTH windows
    failed = {name for name, _ in summary.failed}
    assert sorted([*summary.done, *failed]) == sorted(plans)
    assert not summary.skipped
    assert not summary.not_reached
    computed = {sent.window_key for sent in pool.computed}
    assert computed >= set(all_windows({name: plans[name] for name in summary.done}))
    killed = {event for (event, _, _), deaths in pool.deaths.items() if deaths >= MOST_DEATHS}
    assert failed <= pool.failing | killed
    assert max(pool.deaths.values(), default=0) <= MOST_DEATHS
