"""Runs the project's scripts in processes of their own."""

import atexit
import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

PROJECT = Path(__file__).resolve().parent.parent
DEMO_SAM = ("--device", "cpu", "--sam-model-type", "vit_demo")
# A coarse point grid: seconds instead of a minute per window, for tests that do not look at the masks themselves.
FEW_POINTS = {"ANOMALYCD_STAGE1_SAM_PARAMS": '{"points_per_side": 4}'}
# The events of the `small_events` fixture; one name is not ASCII and has a space.
FIRE = "4_火灾_kleiner Brand"
CONTROL = "0_control"
# Libraries of the scripts that take seconds to load. No module of the project: config.py reads the environment.
LIBRARIES = [
    *("torch", "torchvision.ops", "segment_anything", "numpy", "cv2", "tqdm", "skimage.morphology", "skimage.measure"),
    *("osgeo.gdal", "osgeo.gdal_array", "osgeo.ogr", "osgeo.osr", "sklearn", "matplotlib.figure"),
    *("pystac_client", "requests"),
]
FAULT = "ANOMALYCD_TEST_FAULT"  # with it, PYTHONPATH holds the `sitecustomize` of tests/cluster/faults
# Variables that need no new interpreter, beside ANOMALYCD_*.
FORKABLE = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "RAY_AUTH_MODE")
STREAMS = ("stdin", "stdout", "stderr")


def command(script: str, *arguments: object) -> list[str]:
    """Return the command line of a script (or `-mMODULE`), with this interpreter."""
    return [sys.executable, script, *map(str, arguments)]


def run_process(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, with these environment variables beside the current ones.

    The script is forked from a process that has loaded the libraries (see `run_forked`), unless it is program text
    (`-c`) or has variables that an interpreter reads at its start.
    """
    forkable = all(name.startswith("ANOMALYCD_") or name in FORKABLE for name in environment) or FAULT in environment
    if forkable and script != "-c":
        return run_forked(command(script, *arguments), environment)
    return subprocess.run(
        command(script, *arguments),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=os.environ | environment,
        check=False,
    )


def run_forked(
    line: list[str], environment: dict[str, str], folder: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    """Run a script in `folder`, in a fork of a process that has loaded the libraries. Its stdin is empty.

    `line`: interpreter (ignored), script (or `-mMODULE`), arguments.
    """
    with tempfile.TemporaryDirectory() as streams:
        (Path(streams) / "stdin").touch()
        process = _fork(line[1:], folder, os.environ | environment, Path(streams))
        process.join()
        assert process.exitcode is not None
        texts = [(Path(streams) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(line, process.exitcode, *texts)


@dataclass
class Dialogue:
    """A running script whose stdin and stdout are pipes."""

    process: BaseProcess
    stdin: TextIO
    stdout: TextIO
    stderr_path: Path

    def signal(self, number: int) -> None:
        """Send a signal to the script."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def finish(self, answers: str = "") -> str:
        """Write to stdin, close it, wait for the end of the script; returns its stderr."""
        self.stdin.write(answers)
        self.stdin.close()
        self.process.join()
        return self.stderr_path.read_text(encoding="utf-8")


@contextmanager
def started(script: str, *arguments: object, **environment: str) -> Iterator[Dialogue]:
    """Start a script as `run_forked` does, with pipes for stdin and stdout; it is killed at the end of the block."""
    with tempfile.TemporaryDirectory() as streams:
        stdin, stdout, stderr = (Path(streams) / name for name in STREAMS)
        os.mkfifo(stdin)
        os.mkfifo(stdout)
        process = _fork(command(script, *arguments)[1:], PROJECT, os.environ | environment, Path(streams))
        try:
            with open(stdin, "w") as to_script, open(stdout) as from_script:
                yield Dialogue(process, to_script, from_script, stderr)
        finally:
            process.kill()
            process.join()


def fork_server() -> ForkServerContext:
    """Return the context whose processes are forked from one that has loaded the libraries."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(LIBRARIES)
    return server


def _fork(line: list[str], folder: Path, environment: dict[str, str], streams: Path) -> BaseProcess:
    """Start a script. `streams`: a folder with the file or pipe `stdin`, for the script's `stdout` and `stderr`."""
    process = fork_server().Process(target=_run_script, args=(line, folder, dict(environment), streams))
    process.start()
    return process


def _run_script(arguments: list[str], folder: Path, environment: dict[str, str], streams: Path) -> None:
    """Replace this forked process's environment, folder and streams with the script's, and run the script."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, name in enumerate(STREAMS):
        mode = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(streams / name, mode), descriptor)
    sys.stdin = open(0)  # noqa: SIM115  # multiprocessing has replaced it
    if FAULT in environment:  # an interpreter does this at its start
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
        importlib.import_module("sitecustomize")
    script = arguments[0]
    sys.argv = arguments
    try:
        if script.startswith("-m"):
            runpy.run_module(script[2:], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves without them
