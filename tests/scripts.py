"""Runs the project's scripts as a user does: as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DEMO_SAM = ("--device", "cpu", "--sam-model-type", "vit_demo")
# A coarse point grid: seconds instead of a minute a window, where the masks themselves are not looked at.
FEW_POINTS = {"ANOMALYCD_STAGE1_SAM_PARAMS": '{"points_per_side": 4}'}
# The events of the `small_events` fixture; one name is not ASCII and has a space.
FIRE = "4_火灾_kleiner Brand"
CONTROL = "0_control"


def command(script: str, *arguments: object) -> list[str]:
    """The command line of a script (or `-mMODULE`), with this interpreter."""
    return [sys.executable, script, *map(str, arguments)]


def run_process(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, with these environment variables beside the present ones."""
    return subprocess.run(
        command(script, *arguments),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=os.environ | environment,
        check=False,
    )
