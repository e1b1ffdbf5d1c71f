"""Runs the project's scripts in processes of their own."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DEMO_SAM = ("--device", "cpu", "--sam-model-type", "vit_demo")
# A coarse point grid: seconds instead of a minute per window, for tests that do not look at the masks themselves.
FEW_POINTS = {"ANOMALYCD_STAGE1_SAM_PARAMS": '{"points_per_side": 4}'}
# The events of the `small_events` fixture; one name is not ASCII and has a space.
FIRE = "4_火灾_kleiner Brand"
CONTROL = "0_control"
# What the scripts load and takes seconds. None of the project's modules: config.py reads the environment when loaded.
LIBRARIES = [
    *("torch", "torchvision.ops", "segment_anything", "numpy", "cv2", "tqdm", "skimage.morphology", "skimage.measure"),
    *("osgeo.gdal", "osgeo.gdal_array", "osgeo.ogr", "osgeo.osr", "sklearn", "matplotlib.figure"),
]


def command(script: str, *arguments: object) -> list[str]:
    """The command line of a script (or `-mMODULE`), with this interpreter."""
    return [sys.executable, script, *map(str, arguments)]


def run_process(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, with these environment variables beside the present ones.

    A script that only gets settings of the project is forked from a process that has loaded the libraries. Anything
    else, which may depend on how an interpreter starts, is run as a user does.
    """
    if script == "-c" or "--ray" in arguments or not all(name.startswith("ANOMALYCD_") for name in environment):
        return subprocess.run(
            command(script, *arguments),
            capture_output=True,
            text=True,
            cwd=PROJECT,
            env=os.environ | environment,
            check=False,
        )
    return run_forked(script, *arguments, **environment)


def run_forked(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a fork of a process that has loaded the libraries; see `run_process`."""
    line = command(script, *arguments)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        process = server.Process(target=_run_script, args=(line[1:], dict(os.environ | environment), *outputs))
        process.start()
        process.join()
        assert process.exitcode is not None
        texts = [path.read_text(encoding="utf-8") for path in outputs]
    return subprocess.CompletedProcess(line, process.exitcode, *texts)


def _run_script(arguments: list[str], environment: dict[str, str], stdout: Path, stderr: Path) -> None:
    """Be the script: the body of a forked process."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(PROJECT)
    for path, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    script = arguments[0]
    sys.argv = arguments
    try:
        if script.startswith("-m"):
            runpy.run_module(script[2:], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves without them
