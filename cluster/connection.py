"""Starts Ray on this machine or joins a cluster, and lists the cluster's machines."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from cluster.resources import WantedWorkers
from utils import LOG, UsageError

CONNECT_SECONDS = 4  # for a machine to accept a connection
ANSWER_SECONDS = 9  # for joining a cluster
PATIENCE_SECONDS = 600  # for a first machine or worker: an autoscaler may be starting them
# Settings of a Ray started on this machine. Idle processes are kept for the next step: by default, Ray ends them after
# a second, and starting one takes longer than computing many windows.
LOCAL_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_idle_worker_killing_time_threshold_ms": "600000"}

# Of the folder below which Ray makes its sockets, bytes: a socket's whole path may have 107.
LONGEST_FOLDER = 107 - len("/ray/session_2026-01-31_00-00-00_000000_4194304/sockets/plasma_store")


def machines(ray: ModuleType) -> list[dict[str, float]]:
    """Return the resources of each machine of the cluster, as Ray names them."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def machines_with_room(ray: ModuleType, wanted: WantedWorkers, check: Callable[[], None]) -> list[dict[str, float]]:
    """Wait until one of the machines can hold a worker; returns the resources of all machines.

    The machines of an allocation join one by one. Gives up after PATIENCE_SECONDS and returns what is there.
    `check`: called every second.
    """
    needed = "GPU" if wanted.named_device in ("cuda", "cuda:0") else "CPU"
    for waited in range(PATIENCE_SECONDS):
        found = machines(ray)
        if wanted.address == "local" or any(node.get(needed, 0) >= 1 for node in found):
            break
        if not waited:
            LOG.info("waiting for a machine with a %s to join the cluster", needed)
        check()
        time.sleep(1)
    return found


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--ray needs the package ray ({error}): pip install -r requirements-ray.txt") from None
    return ray


@contextmanager
def connected(wanted: WantedWorkers) -> Iterator[ModuleType]:
    """Start Ray on this machine, or join a cluster; disconnect at the end. Raises UsageError if this is impossible."""
    ray = _import_ray()
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    on_terminate = signal.getsignal(signal.SIGTERM)
    if wanted.address == "local":
        for name, value in LOCAL_SETTINGS.items():
            os.environ.setdefault(name, value)
        _check_folder()
        cpus = wanted.number and wanted.number * (wanted.cpus or 1)
        cpus = cpus and max(cpus, os.cpu_count() or 1)
        ray.init("local", num_cpus=cpus, num_gpus=0 if wanted.on_cpus else None, include_dashboard=False, **quiet)
    else:
        _probe(wanted.address)
        ray.init(wanted.address, **quiet)
    signal.signal(signal.SIGTERM, on_terminate)  # Ray's handler would end this process without a summary
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_folder() -> None:
    """Let a Ray on this machine use /tmp if the path of TMPDIR is too long for its sockets.

    Raises UsageError if that of RAY_TMPDIR is.
    """
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR", "/tmp")
    if len(os.fsencode(folder)) <= LONGEST_FOLDER:
        return
    too_long = f"longer than the {LONGEST_FOLDER} bytes that Ray's sockets leave"
    if "RAY_TMPDIR" in os.environ:
        raise UsageError(f"RAY_TMPDIR={folder}: its path is {too_long}; name a shorter folder")
    os.environ["RAY_TMPDIR"] = "/tmp"
    LOG.info("the path of TMPDIR is %s: Ray keeps its files in /tmp (RAY_TMPDIR names another folder)", too_long)


def _probe(address: str) -> None:
    """Try to join a cluster from another process; raises UsageError if that fails.

    In this process, Ray would wait for minutes if nothing answers.
    """
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray {address}: ray:// is not supported; run this on a machine of the cluster, with --ray auto"
        )
    host, _, port = address.rpartition(":")
    if address != "auto":
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise UsageError(f"--ray {address}: nothing answers there ({error}); give HOST:PORT, or auto") from None
    script = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    try:
        joined = subprocess.run(
            [sys.executable, "-c", script, address], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
        stderr = joined.stderr
    except subprocess.TimeoutExpired as error:
        joined, stderr = None, (error.stderr or b"").decode(errors="replace")
    if joined is not None and joined.returncode == 0:
        return
    if "InvalidAuthToken" in stderr:
        reason = "it asks for a token: set RAY_AUTH_MODE=token, and put its token into ~/.ray/auth_token"
    elif joined is None:
        reason = f"no Ray cluster answers there within {ANSWER_SECONDS} s"
    else:
        reason = " ".join(stderr.strip().splitlines()[-1:])
    raise UsageError(f"--ray {address}: {reason}")
