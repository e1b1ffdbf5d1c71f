import logging
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

import utils
from cli.script import Interrupted
from cluster.remote_calls import Line, Outcome, call, relay
from pipeline.dispatch import Failure
from utils import LOG, EventError, UsageError, describe_error, warn_once


def failing(error: BaseException) -> Callable[[], Any]:
    def work() -> None:
        raise error

    return work


def failure_of(error: Exception) -> Failure:
    failure = call(failing(error)).failure
    assert failure is not None
    return failure


@pytest.fixture(autouse=True)
def _no_previous_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "_WARNED", set())


def test_call_returns_the_value() -> None:
    assert call(lambda: [1, 2]) == Outcome([1, 2])


@pytest.mark.parametrize(
    ("error", "message", "expected"),
    [
        (EventError("x.tif: is\ncut off"), "x.tif: is cut off", True),
        (UsageError("invalid SAM mask parameters"), "invalid SAM mask parameters", True),
        (OSError(28, "No space left on device", "a.tif"), "a.tif: No space left on device", True),
        (FileNotFoundError(2, "No such file", "a.tif"), "a.tif: No such file", True),
        (MemoryError(), "MemoryError", False),
        (
            ZeroDivisionError("by\n zero"),
            "unexpected ZeroDivisionError: by zero (use --log-file to record the traceback)",
            False,
        ),
        (
            RuntimeError("CUDA error"),
            "unexpected RuntimeError: CUDA error (use --log-file to record the traceback)",
            False,
        ),
    ],
)
def test_call_returns_an_error_as_one_line(error: Exception, message: str, expected: bool) -> None:
    failure = failure_of(error)
    assert failure.message == message
    assert failure.ends_worker != expected
    assert failure.trace.startswith("Traceback")
    assert "in work" in failure.trace
    restored = failure.to_error()
    assert describe_error(restored) == message  # without a second "unexpected"
    assert failure.trace in str(restored.__cause__)


def test_the_traceback_is_logged_but_not_in_the_message(caplog: pytest.LogCaptureFixture) -> None:
    failure = failure_of(KeyError("a defect"))
    caplog.set_level("DEBUG", "anomalycd")
    LOG.debug("traceback", exc_info=failure.to_error())
    assert "raised by:\nTraceback" in caplog.text
    assert "KeyError: 'a defect'" in caplog.text
    assert "Traceback" not in str(failure.to_error())


def test_an_error_that_cannot_be_pickled_is_returned() -> None:
    class LocalError(Exception):
        def __init__(self, lock: object) -> None:
            super().__init__("of a library")
            self.lock = lock

    outcome = call(failing(LocalError(threading.Lock())))
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert outcome.failure is not None
    assert outcome.failure.message == "unexpected LocalError: of a library (use --log-file to record the traceback)"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(15), SystemExit(3)])
def test_interrupts_and_exits_are_raised(error: BaseException) -> None:
    handlers = list(LOG.handlers)
    with pytest.raises(type(error)):
        call(failing(error))
    assert LOG.handlers == handlers


def test_call_returns_log_lines_with_a_value_or_an_error() -> None:
    def work() -> None:
        LOG.debug("not returned")
        LOG.info("%d of %d windows", 3, 7)
        warn_once("n.tif: resampled")
        logging.getLogger("another").error("of another logger")
        raise EventError("x.tif: is cut off")

    outcome = call(work)
    lines = (Line(logging.INFO, "3 of 7 windows"), Line(logging.WARNING, "n.tif: resampled"))
    assert outcome.failure is not None
    assert outcome.lines == lines
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert call(lambda: LOG.info("once more")).lines == (Line(logging.INFO, "once more"),)


def test_log_lines_are_returned_at_any_log_level() -> None:
    LOG.setLevel(logging.WARNING)  # the default level; caplog restores it
    assert call(lambda: LOG.info("hello")).lines == (Line(logging.INFO, "hello"),)


def test_log_lines_of_concurrent_calls_are_kept_apart() -> None:
    both_run = threading.Barrier(2, timeout=60)
    outcomes: dict[str, Outcome] = {}

    def work(name: str) -> str:
        both_run.wait()  # both handlers are installed
        LOG.info("of %s", name)
        both_run.wait()  # both have logged
        return name

    def ask(name: str) -> None:
        outcomes[name] = call(lambda: work(name))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {name: Outcome(name, None, (Line(logging.INFO, f"of {name}"),)) for name in ("one", "two")}


def test_log_lines_of_helper_threads_are_returned_once() -> None:
    def help_out() -> None:
        warn_once("n.tif: its mask is ignored")
        LOG.info("read")

    def work() -> None:
        helper = threading.Thread(target=help_out)
        helper.start()
        helper.join()
        LOG.info("computed")

    other: list[Outcome] = []
    entered, left = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        left.wait(60)

    thread = threading.Thread(target=lambda: other.append(call(wait)))  # another window of this worker
    thread.start()
    entered.wait(60)
    lines = call(work).lines
    left.set()
    thread.join()
    assert lines[-1] == Line(logging.INFO, "computed")
    expected = {Line(logging.WARNING, "n.tif: its mask is ignored"), Line(logging.INFO, "read")}
    helpers = [*lines[:-1], *other[0].lines]
    assert len(helpers) == 2
    assert set(helpers) == expected


@pytest.mark.parametrize("work", [lambda: None, failing(EventError("x.tif")), failing(KeyError("x"))])
def test_call_removes_its_log_handler(work: Callable[[], Any]) -> None:
    handlers = list(LOG.handlers)
    call(work)
    assert LOG.handlers == handlers


def test_relay_logs_lines_and_repeated_warnings_once(caplog: pytest.LogCaptureFixture) -> None:
    info, warning = Line(logging.INFO, "100 % of x"), Line(logging.WARNING, "n.tif: resampled, 50 %s")
    for _ in range(3):
        relay([info, warning])
    warn_once(warning.message)  # the same warning in this process
    relay([Line(logging.WARNING, "another")])
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.INFO] == 3 * [info.message]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [warning.message, "another"]
