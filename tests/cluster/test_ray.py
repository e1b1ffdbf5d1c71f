"""Runs on real Ray clusters of several machines, which are raylets on this one: the same maps, whatever dies."""

import os
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import run
import run_stage1
import run_stage2
from cluster.connection import LOCAL_SETTINGS
from tests.cluster import small_runs
from tests.cluster.small_runs import arguments, assert_same
from tests.scripts import FAULT, PROJECT, run_process

cluster_utils = pytest.importorskip("ray.cluster_utils")

# Clusters that are started by hand ask for a token; that is Ray's affair.
SETTINGS = {**small_runs.SETTINGS, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
FAULTS = PROJECT / "tests" / "cluster" / "faults"


class SmallCluster:
    """A head without processors and two machines with one each."""

    def __init__(self) -> None:
        os.environ |= {"RAY_AUTH_MODE": "disabled"} | LOCAL_SETTINGS
        memory = {"object_store_memory": 80 << 20}
        self._cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory}
        )
        for _ in range(2):
            self._cluster.add_node(num_cpus=1, **memory)
        self.address = self._cluster.address

    def close(self) -> None:
        self._cluster.shutdown()
        os.environ.pop("RAY_AUTH_MODE", None)  # another one may have been there at the same time


@pytest.fixture(scope="module")
def cluster() -> Iterator[SmallCluster]:
    made = SmallCluster()
    yield made
    made.close()


def with_fault(name: str, marks: Path) -> dict[str, str]:
    marks.mkdir(exist_ok=True)
    return SETTINGS | {
        "PYTHONPATH": str(FAULTS),
        FAULT: name,
        "ANOMALYCD_TEST_MARKS": str(marks),
    }


def run_on(
    address: str, data: Path, root: Path, *flags: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    return run_process(
        "run.py", *arguments(data, root), "--ray", address, "--ray-workers", 2, *flags, **(SETTINGS | environment)
    )


# --- The same maps ---------------------------------------------------------------------------------------------------
def test_a_cluster_makes_the_maps_of_a_single_process_and_encodes_dates_once(
    cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path
) -> None:
    fault = with_fault("count_encoded", tmp_path / "marks")
    done = run_on(cluster.address, small_events, tmp_path / "out", "--log-file", tmp_path / "log.txt", **fault)
    assert done.returncode == 0, done.stderr
    assert "; workers with 1 CPU each, now room for 2" in done.stderr
    assert "both stages: 2 done, 0 skipped, 0 failed" in done.stderr
    assert "16/16" in done.stderr  # 2 events, 2 stages, 4 windows
    assert (tmp_path / "log.txt").read_text().count("is ready on") == 2
    assert_same(tmp_path / "out", alone)
    encoded = sum(path.stat().st_size for path in (tmp_path / "marks").iterdir())
    dates = [path for path in small_events.glob("*/*.tif") if not path.stem.endswith("_label")]
    least = 4 * len(dates)  # each date of each window once
    # If stage 2 did not use the features of stage 1, two dates of each window would be encoded twice.
    assert least <= encoded < least + 2 * 4 * 2


# --- Faults ----------------------------------------------------------------------------------------------------------
def test_a_run_goes_on_after_a_dead_driver_and_after_one_that_was_asked_to_end(
    cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path
) -> None:
    out = tmp_path / "out"
    run_one = partial(run_on, cluster.address, small_events, out, "--ray-workers", 1)  # starting one takes seconds
    killed = run_one(**with_fault("kill_driver", tmp_path / "killed"))
    assert killed.returncode == -9
    assert list(out.glob("stage1/*/.*.windows-*/*_130_130"))
    ended = run_one(**with_fault("interrupt_driver", tmp_path / "ended"))
    assert ended.returncode == 143, ended.stderr
    assert "windows already finished" in ended.stderr
    assert "not finished" in ended.stderr
    assert "interrupted (SIGTERM)" in ended.stderr
    assert "Traceback" not in ended.stderr
    left = list(out.glob("stage*/*/.*.windows-*/*_130_130"))  # none if the last step had just ended
    done = run_one()
    assert done.returncode == 0, done.stderr
    assert ("windows already finished" in done.stderr) == bool(left)
    assert_same(out, alone)


# --- Clusters that cannot be used ------------------------------------------------------------------------------------
@pytest.fixture
def mute_address() -> Iterator[str]:
    """One where somebody listens, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def assert_usage_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("config: "))
    assert all(part in line for part in ("error: ", *parts)), line
    assert done.returncode == 2


def test_an_address_that_does_not_answer_is_an_error(mute_address: str, small_events: Path, tmp_path: Path) -> None:
    assert_usage_error(run_on(mute_address, small_events, tmp_path), mute_address, "no Ray cluster answers there")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:9", "nothing answers there"),
        ("nonsense", "give HOST:PORT, or auto"),
        ("ray://127.0.0.1:10001", "with --ray auto"),
    ],
)
def test_an_address_of_no_cluster_is_an_error(address: str, reason: str, small_events: Path, tmp_path: Path) -> None:
    done = run_process("run.py", *arguments(small_events, tmp_path), "--ray", address)
    assert_usage_error(done, address, reason)


def test_without_the_package_there_is_one_line(small_events: Path, tmp_path: Path) -> None:
    done = run_process(
        "run.py", *arguments(small_events, tmp_path), "--ray", **with_fault("no_ray", tmp_path / "marks")
    )
    assert_usage_error(done, "--ray needs the package ray", "requirements-ray.txt")


def test_without_the_flag_ray_is_not_imported() -> None:
    script = "import sys, run, run_stage1, run_stage2; sys.exit('ray' in sys.modules)"
    assert run_process("-c", script).returncode == 0


def test_paths_are_absolute_for_other_processes() -> None:
    for script in (run, run_stage1, run_stage2):
        there = script.parse_arguments(["--ray", "auto", "--data-root", "data", "--sam-checkpoint", "x.pth"])
        assert there.data_root == Path.cwd() / "data"
        assert there.sam_checkpoint == Path.cwd() / "x.pth"
        assert script.parse_arguments(["--data-root", "data"]).data_root == Path("data")


# --- Last, since it breaks the cluster -------------------------------------------------------------------------------
def test_deaths_of_a_worker_and_a_machine_cost_no_more_than_the_running_windows(
    cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path
) -> None:
    marks = tmp_path / "marks"
    done = run_on(cluster.address, small_events, tmp_path / "out", **with_fault("kill_worker_and_node", marks))
    assert done.returncode == 0, done.stderr
    assert (marks / "worker_killed").exists()
    assert (marks / "node_killed").exists()
    assert done.stderr.count("is lost") >= 2
    assert "both stages: 2 done, 0 skipped, 0 failed" in done.stderr
    assert_same(tmp_path / "out", alone)
