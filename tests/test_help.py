"""`--help` does not import libraries that take seconds to load."""

import json
import subprocess
import sys

import pytest

from tests.scripts import PROJECT
from tests.test_architecture import SCRIPTS

HEAVY = {
    *("torch", "torchvision", "numpy", "cv2", "osgeo", "skimage", "sklearn", "ray", "matplotlib", "segment_anything"),
    *("pystac", "pystac_client", "requests"),
}
PROGRAM = """
import json, runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    print("\\n" + json.dumps([ended.code, sorted(name for name in sys.modules if "." not in name)]))
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_no_library(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, f"{script}.py"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert not HEAVY & set(loaded)
