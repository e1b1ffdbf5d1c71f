import logging
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

import utils
from cli.script import Interrupted
from cluster.remote_calls import Failure, Line, Outcome, call, relay
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
def _nothing_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "_WARNED", set())


def test_a_value_comes_home() -> None:
    assert call(lambda: [1, 2]) == Outcome([1, 2])


@pytest.mark.parametrize(
    ("error", "message", "expected"),
    [
        (EventError("x.tif: is\ncut off"), "x.tif: is cut off", True),
        (UsageError("SAM does not take these"), "SAM does not take these", True),
        (OSError(28, "No space left on device", "a.tif"), "[Errno 28] No space left on device: 'a.tif'", True),
        (FileNotFoundError(2, "No such file", "a.tif"), "[Errno 2] No such file: 'a.tif'", True),
        (MemoryError(), "MemoryError", False),
        (ZeroDivisionError("by\n zero"), "unexpected ZeroDivisionError: by zero (--log-file keeps where)", False),
        (RuntimeError("CUDA error"), "unexpected RuntimeError: CUDA error (--log-file keeps where)", False),
    ],
)
def test_an_error_comes_home_as_one_line(error: Exception, message: str, expected: bool) -> None:
    failure = failure_of(error)
    assert failure.message == message
    assert failure.expected == expected
    assert failure.trace.startswith("Traceback")
    assert "in work" in failure.trace
    at_home = failure.to_error()
    assert describe_error(at_home) == message  # which is not said to be unexpected once more
    assert failure.trace in str(at_home.__cause__)


def test_the_trace_is_for_the_log_file_alone(caplog: pytest.LogCaptureFixture) -> None:
    failure = failure_of(KeyError("a defect"))
    caplog.set_level("DEBUG", "anomalycd")
    LOG.debug("how it failed", exc_info=failure.to_error())
    assert "in another process:\nTraceback" in caplog.text
    assert "KeyError: 'a defect'" in caplog.text
    assert "Traceback" not in str(failure.to_error())


def test_an_error_that_cannot_be_pickled_can_be_sent() -> None:
    class LocalError(Exception):
        def __init__(self, lock: object) -> None:
            super().__init__("of a library")
            self.lock = lock

    outcome = call(failing(LocalError(threading.Lock())))
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert outcome.failure is not None
    assert outcome.failure.message == "unexpected LocalError: of a library (--log-file keeps where)"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(15), SystemExit(3)])
def test_a_call_that_is_ended_gives_nothing(error: BaseException) -> None:
    handlers = list(LOG.handlers)
    with pytest.raises(type(error)):
        call(failing(error))
    assert LOG.handlers == handlers


def test_what_is_logged_comes_home_with_the_value_and_with_an_error() -> None:
    def work() -> None:
        LOG.debug("of no interest")
        LOG.info("%d of %d windows", 3, 7)
        warn_once("n.tif: resampled")
        logging.getLogger("another").error("not ours")
        raise EventError("x.tif: is cut off")

    outcome = call(work)
    lines = (Line(logging.INFO, "3 of 7 windows"), Line(logging.WARNING, "n.tif: resampled"))
    assert outcome.failure is not None
    assert outcome.lines == lines
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert call(lambda: LOG.info("once more")).lines == (Line(logging.INFO, "once more"),)


def test_lines_come_home_whatever_level_the_process_logs_at() -> None:
    LOG.setLevel(logging.WARNING)  # as where nobody has set it; caplog sets it back
    assert call(lambda: LOG.info("hello")).lines == (Line(logging.INFO, "hello"),)


def test_lines_of_another_thread_belong_to_its_own_call() -> None:
    both_run = threading.Barrier(2, timeout=60)
    outcomes: dict[str, Outcome] = {}

    def work(name: str) -> str:
        both_run.wait()  # both handlers are there
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


@pytest.mark.parametrize("work", [lambda: None, failing(EventError("x.tif")), failing(KeyError("x"))])
def test_no_handler_stays(work: Callable[[], Any]) -> None:
    handlers = list(LOG.handlers)
    call(work)
    assert LOG.handlers == handlers


def test_lines_are_logged_at_home_and_warnings_once(caplog: pytest.LogCaptureFixture) -> None:
    info, warning = Line(logging.INFO, "100 % of x"), Line(logging.WARNING, "n.tif: resampled, 50 %s")
    for _ in range(3):
        relay([info, warning])
    warn_once(warning.message)  # this process has found the same
    relay([Line(logging.WARNING, "another")])
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.INFO] == 3 * [info.message]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [warning.message, "another"]
