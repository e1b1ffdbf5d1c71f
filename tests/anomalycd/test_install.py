"""`pip install .` in a copy of what git tracks: one package, which works without the checkout."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import PROJECT

ARRAYS = """
import importlib.util, sys
import numpy as np

sys.modules["osgeo"] = None  # GDAL is not installed
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "osgeo" else find(name)
from anomalycd import AnomalyCD

model = AnomalyCD("vit_demo", sys.argv[1], device="cpu")
image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
changes = model.change(image, image[::-1])
print(changes.shape, model.anomaly([image], image[::-1], changes).dtype)
try:
    model.run("event", "out")
except Exception as error:
    print(type(error).__name__, error)
"""
FILES = """
import importlib, pkgutil, sys, anomalycd
from anomalycd import config

for module in pkgutil.walk_packages(anomalycd.__path__, "anomalycd."):
    importlib.import_module(module.name)
taken = {"config", "utils", "sam", "cli", "rasters", "pipeline", "evaluation"} & set(sys.modules)
print(sorted(taken), config.WEIGHTS_DIR, config.DEFAULT_OUTPUT_ROOT)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package was installed."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    names = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    subprocess.run(["xargs", "-0", "cp", "--parents", "-t", source], cwd=PROJECT, input=names, check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", target, "."], cwd=source, capture_output=True, check=True)
    assert {path.name.split("-")[0] for path in target.iterdir()} == {"anomalycd"}
    return target


def run_installed(installed: Path, folder: Path, program: str, *arguments: object) -> str:
    """Run a program in a folder, from which only the installed package can be imported."""
    (folder / "utils.py").write_text("raise ImportError('taken')")
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=folder,
        env={"PYTHONPATH": str(installed), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_arrays_need_no_gdal(installed: Path, tmp_path: Path) -> None:
    weights = PROJECT / "tests" / "toy_sam" / "sam_vit_demo.pth"
    first, second = run_installed(installed, tmp_path, ARRAYS, weights).splitlines()
    assert first == "(64, 64) float32"
    assert second.startswith("UsageError files need GDAL: pip install ")


@pytest.mark.slow
def test_every_module_lies_in_the_package(installed: Path, tmp_path: Path) -> None:
    found = run_installed(installed, tmp_path, FILES)
    assert found == f"[] {tmp_path / '.cache' / 'anomalycd'} {tmp_path / 'outputs'}"


def test_the_package_needs_what_the_requirements_say() -> None:
    needed = re.findall(r'"([\w-]+>=[\d.]+)"', (PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    needed.remove("setuptools>=77")
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line.split("  #")[0] for line in lines if not line.startswith("#")]
    assert sorted(needed) == sorted(line for line in required if not line.startswith("scikit-learn"))
