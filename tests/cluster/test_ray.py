"""Runs on real Ray clusters of several machines, which are raylets on this one: the same maps, whatever dies."""

import argparse
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import config
import run
import run_stage1
import run_stage2
from cluster.flags import add_ray_arguments
from cluster.ray_pool import LOCAL_SETTINGS, machines_with_room
from cluster.resources import WorkerResources, worker_shape
from demo.make_events import DEMO_EVENTS, write_event
from rasters.maps import open_map, read_parameters
from tests.helpers import whole
from tests.scripts import CONTROL, DEMO_SAM, FEW_POINTS, FIRE, PROJECT, run_process
from utils import UsageError

cluster_utils = pytest.importorskip("ray.cluster_utils")

SMALL_WINDOWS = {"ANOMALYCD_STAGE2_PATCH_SIZE": "130", "ANOMALYCD_STAGE2_SMALL_PATCH_SIZE": "130"}  # 4 of them
# Clusters that are started by hand ask for a token; that is Ray's affair.
SETTINGS = {**FEW_POINTS, **SMALL_WINDOWS, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
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


@pytest.fixture
def own_cluster() -> Iterator[SmallCluster]:
    """One that a test may break."""
    made = SmallCluster()
    yield made
    made.close()


def arguments(data: Path, root: Path) -> list[str]:
    roots = ("--data-root", data, "--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    return [*map(str, roots), "--patch-size", "130", *DEMO_SAM]


def with_fault(name: str, marks: Path) -> dict[str, str]:
    marks.mkdir(exist_ok=True)
    return SETTINGS | {
        "PYTHONPATH": str(FAULTS),
        "ANOMALYCD_TEST_FAULT": name,
        "ANOMALYCD_TEST_MARKS": str(marks),
    }


def run_on(
    address: str, data: Path, root: Path, *flags: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    return run_process(
        "run.py", *arguments(data, root), "--ray", address, "--ray-workers", 2, *flags, **(SETTINGS | environment)
    )


@pytest.fixture(scope="module")
def alone(small_events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a single process makes."""
    root = tmp_path_factory.mktemp("alone")
    done = run_process("run.py", *arguments(small_events, root), **SETTINGS)
    assert done.returncode == 0, done.stderr
    return root


def outputs(root: Path) -> dict[str, Any]:
    """Pixels and parameters of all maps, and all previews, by name."""
    found: dict[str, Any] = {}
    for path in sorted(root.glob("stage*/*/*")):
        name = str(path.relative_to(root))
        if path.suffix == ".tif":
            found[name] = (whole(open_map(path)).tobytes(), read_parameters(path))
        elif path.suffix == ".png":
            found[name] = path.read_bytes()
    return found


def assert_same(root: Path, alone: Path) -> None:
    assert outputs(root) == outputs(alone)
    assert {path.name for path in root.rglob("*")} == {path.name for path in alone.rglob("*")}  # nothing is left


# --- The same maps ---------------------------------------------------------------------------------------------------
def test_a_cluster_makes_the_maps_of_a_single_process(cluster: SmallCluster, tmp_path: Path) -> None:
    data, alone, root = (tmp_path / name for name in ("data", "alone", "cluster"))
    for event in DEMO_EVENTS:
        write_event(data, event, size=256)
    assert run_process("run.py", *arguments(data, alone), **SETTINGS).returncode == 0
    done = run_on(cluster.address, data, root, "--log-file", tmp_path / "log.txt")
    assert done.returncode == 0, done.stderr
    assert "; workers with 1 CPU each, now room for 2" in done.stderr
    assert "both stages: 6 done, 0 skipped, 0 failed" in done.stderr
    assert "48/48" in done.stderr  # 6 events, 2 stages, 4 windows
    assert (tmp_path / "log.txt").read_text().count("is ready on") == 2
    assert_same(root, alone)


def test_a_cluster_skips_what_is_there(cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path) -> None:
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    again = run_on(cluster.address, small_events, tmp_path, "--skip-existing-stage2")
    assert f"skipped {FIRE}: its change map exists and its anomaly map exists" in again.stderr
    assert "both stages: 0 done, 2 skipped, 0 failed" in again.stderr


def test_the_stages_alone_make_the_same_maps_on_this_machine(small_events: Path, tmp_path: Path, alone: Path) -> None:
    settings = {name: value for name, value in SETTINGS.items() if name != "RAY_AUTH_MODE"}
    flags = ("--data-root", small_events, *DEMO_SAM, "--ray", "--ray-workers", 2)
    stage1 = ("--output-root", tmp_path / "stage1", "--patch-size", 130)
    first = run_process("run_stage1.py", *stage1, *flags, **settings)
    assert first.returncode == 0, first.stderr
    stage2 = ("--stage1-root", tmp_path / "stage1", "--output-root", tmp_path / "stage2")
    second = run_process("run_stage2.py", *stage2, *flags, **settings)
    assert second.returncode == 0, second.stderr
    assert_same(tmp_path, alone)


def test_features_of_stage_1_are_used_where_they_are(
    cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path
) -> None:
    marks = tmp_path / "marks"
    done = run_on(cluster.address, small_events, tmp_path / "out", **with_fault("count_encoded", marks))
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "out", alone)
    encoded = sum(path.stat().st_size for path in marks.iterdir())
    dates = [path for path in small_events.glob("*/*.tif") if not path.stem.endswith("_label")]
    least = 4 * len(dates)  # each date of each window once
    assert least <= encoded < least + 2 * 2 * 4  # if nothing were kept, two dates of each window twice


# --- Faults ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("victim", ["worker", "node"])
def test_a_death_costs_no_more_than_the_running_windows(
    own_cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path, victim: str
) -> None:
    fault = with_fault(f"kill_{victim}", tmp_path / "marks")
    done = run_on(own_cluster.address, small_events, tmp_path / "out", **fault)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "marks" / "killed").exists()
    assert "is lost" in done.stderr
    assert "both stages: 2 done, 0 skipped, 0 failed" in done.stderr
    assert_same(tmp_path / "out", alone)


def test_a_dead_driver_is_followed_by_a_run_that_goes_on(
    cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path
) -> None:
    killed = run_on(cluster.address, small_events, tmp_path / "out", **with_fault("kill_driver", tmp_path / "marks"))
    assert killed.returncode == -9
    assert list((tmp_path / "out").glob("stage1/*/.*.windows-*/*_130_130"))
    done = run_on(cluster.address, small_events, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "windows are there already" in done.stderr
    assert_same(tmp_path / "out", alone)


def test_a_run_that_is_asked_to_end_does_so_with_its_summary(
    cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path
) -> None:
    fault = with_fault("interrupt_driver", tmp_path / "marks")
    ended = run_on(cluster.address, small_events, tmp_path / "out", **fault)
    assert ended.returncode == 143, ended.stderr
    assert "not finished" in ended.stderr
    assert "interrupted (SIGTERM)" in ended.stderr
    assert "Traceback" not in ended.stderr
    done = run_on(cluster.address, small_events, tmp_path / "out")
    assert "windows are there already" in done.stderr
    assert_same(tmp_path / "out", alone)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            "raise_on_event",
            r"3 workers were lost with its window of 130 x 130 at \(\d+, \d+\): unexpected RuntimeError: the",
        ),
        ("full_on_event", "No space left on device"),
    ],
)
def test_workers_that_always_fail_on_an_event_fail_this_event_alone(
    cluster: SmallCluster, small_events: Path, tmp_path: Path, alone: Path, fault: str, reason: str
) -> None:
    done = run_on(cluster.address, small_events, tmp_path / "out", **with_fault(fault, tmp_path / "marks"))
    assert done.returncode == 1, done.stderr
    assert "both stages: 1 done, 0 skipped, 1 failed" in done.stderr
    (failed,) = (line for line in done.stderr.splitlines() if line.startswith(f"  failed {CONTROL}"))
    assert re.search(reason, failed), failed
    assert "Traceback" not in done.stderr
    expected = {name: value for name, value in outputs(alone).items() if FIRE in name}
    assert outputs(tmp_path / "out") == expected
    assert not list((tmp_path / "out").glob(f"*/{CONTROL}"))


def test_a_worker_without_memory_takes_smaller_batches(
    cluster: SmallCluster, small_events: Path, tmp_path: Path
) -> None:
    fault = with_fault("out_of_memory", tmp_path / "marks")
    done = run_on(cluster.address, small_events, tmp_path / "out", "--encode-batch", 2, **fault)
    assert done.returncode == 0, done.stderr
    assert "out of device memory with --encode-batch 2: halving it" in done.stderr
    # The same as in a process that was told so at once.
    small = arguments(small_events, tmp_path / "small")
    assert run_process("run.py", *small, "--encode-batch", 1, **SETTINGS).returncode == 0
    assert_same(tmp_path / "out", tmp_path / "small")


def test_a_bad_event_fails_as_in_a_single_process(cluster: SmallCluster, data_root: Path, tmp_path: Path) -> None:
    monitor = next((data_root / CONTROL).glob("normal_*.tif"))
    content = monitor.read_bytes()
    monitor.write_bytes(content[: len(content) // 2])
    done = run_on(cluster.address, data_root, tmp_path)
    assert done.returncode == 1
    assert f"failed {CONTROL}: {monitor}: c" in done.stderr
    assert "both stages: 1 done, 0 skipped, 1 failed" in done.stderr


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
    assert_usage_error(run_on(address, small_events, tmp_path), address, reason)


def test_without_the_package_there_is_one_line(small_events: Path, tmp_path: Path) -> None:
    done = run_process(
        "run.py", *arguments(small_events, tmp_path), "--ray", **with_fault("no_ray", tmp_path / "marks")
    )
    assert_usage_error(done, "--ray needs the package ray", "requirements-ray.txt")


def test_without_the_flag_ray_is_not_imported() -> None:
    script = "import sys, run, run_stage1, run_stage2; sys.exit('ray' in sys.modules)"
    assert run_process("-c", script).returncode == 0


def test_workers_that_would_make_other_maps_are_not_used(
    cluster: SmallCluster, small_events: Path, tmp_path: Path
) -> None:
    fault = with_fault("other_settings", tmp_path / "marks")
    done = run_on(cluster.address, small_events, tmp_path / "out", **fault)
    assert done.returncode == 2, done.stderr
    assert "error: no worker can be started: another MAX_REGION_FRACTION on " in done.stderr
    assert "2 not finished" in done.stderr


def test_paths_are_absolute_for_other_processes() -> None:
    for script in (run, run_stage1, run_stage2):
        there = script.parse_arguments(["--ray", "auto", "--data-root", "data", "--sam-checkpoint", "x.pth"])
        assert there.data_root == Path.cwd() / "data"
        assert there.sam_checkpoint == Path.cwd() / "x.pth"
        assert script.parse_arguments(["--data-root", "data"]).data_root == Path("data")


# --- The workers' shape ----------------------------------------------------------------------------------------------
def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device")
    add_ray_arguments(parser)
    return parser.parse_args(flags)


def shape(*flags: str, nodes: list[dict[str, float]]) -> WorkerResources:
    return worker_shape(parse("--ray", *flags), nodes)


HEAD, GPU_BOX, CPU_BOX = {"CPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}


@pytest.mark.parametrize(
    ("flags", "nodes", "expected", "room"),
    [
        ([], [GPU_BOX], WorkerResources(4, 1.0, None), 4),
        ([], [HEAD, GPU_BOX, GPU_BOX], WorkerResources(4, 1.0, None), 8),
        (["--ray-gpus-per-worker", "0.5"], [GPU_BOX], WorkerResources(2, 0.5, None), 8),
        (["--ray-gpus-per-worker", "0.6"], [GPU_BOX], WorkerResources(4, 0.6, None), 4),  # none on two of them
        (["--ray-cpus-per-worker", "8"], [GPU_BOX], WorkerResources(8, 1.0, None), 2),
        (["--device", "cuda"], [GPU_BOX, {"CPU": 2.0, "GPU": 1.0}], WorkerResources(2, 1.0, None), 5),
        (["--device", "cpu"], [GPU_BOX, CPU_BOX], WorkerResources(1, 0.0, None), 24),
        (["--ray-cpus-per-worker", "3"], [CPU_BOX], WorkerResources(3, 0.0, None), 2),
        (["--ray-workers", "3"], [GPU_BOX], WorkerResources(5, 0.0, 3), 3),
        (["--ray-workers", "2"], [HEAD, CPU_BOX], WorkerResources(2, 0.0, 2), 2),
        (["--ray-workers", "100"], [HEAD, CPU_BOX], WorkerResources(1, 0.0, 100), 10),
        (["--ray-workers", "2", "--ray-cpus-per-worker", "4"], [CPU_BOX], WorkerResources(4, 0.0, 2), 2),
    ],
)
def test_workers_share_what_the_machines_have(
    flags: list[str], nodes: list[dict[str, float]], expected: WorkerResources, room: int
) -> None:
    found = shape(*flags, nodes=nodes)
    assert found == expected
    assert found.room(nodes) == room


class Growing:
    """A cluster that machines join, one for each look at it."""

    def __init__(self, *joining: dict[str, float]) -> None:
        self._joining = joining
        self.looks = 0

    def nodes(self) -> list[dict[str, Any]]:
        self.looks += 1
        return [{"Alive": True, "Resources": resources} for resources in self._joining[: self.looks]]


@pytest.mark.parametrize(("flags", "looks"), [([], 3), (["--device", "cuda"], 4), (["--ray-workers", "2"], 3)])
def test_a_run_waits_for_the_first_machine_that_it_can_use(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], looks: int
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    growing = Growing({"CPU": 0.0}, {}, CPU_BOX, GPU_BOX)
    found = machines_with_room(growing, parse("--ray", "auto", *flags), lambda: None)  # type: ignore[arg-type]
    assert len(found) == growing.looks == looks


def test_a_run_on_this_machine_does_not_wait() -> None:
    assert machines_with_room(Growing({}), parse("--ray"), lambda: None) == [{}]  # type: ignore[arg-type]


def test_without_gpus_the_workers_are_on_cpus_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert shape(nodes=[CPU_BOX]) == WorkerResources(1, 0.0, None)
    assert "no GPU in the cluster" in caplog.text


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--device", "cuda"], "no machine of the cluster has a GPU"),
        (["--device", "cuda:1"], "Ray chooses the GPUs"),
        (["--device", "cuda", "--ray-workers", "2"], "they are on CPUs"),
    ],
)
def test_flags_that_do_not_agree_are_refused(flags: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        shape(*flags, nodes=[CPU_BOX])


def test_a_device_from_the_environment_counts_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.OVERRIDDEN, "DEFAULT_DEVICE", "cpu")
    assert shape(nodes=[GPU_BOX]) == WorkerResources(1, 0.0, None)
