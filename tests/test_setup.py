"""setup.sh: which builds of PyTorch it takes, with a Python that only records what it is asked for."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.scripts import PROJECT

PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] && { mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit; }
echo "$*" >>"$CALLS"
case "$*" in *--index-url*) exit "$INDEX_CODE" ;; esac
"""
NVIDIA_SMI = '#!/bin/sh\nexit "$DRIVER_CODE"\n'
INDEX = "http://127.0.0.1:9/cpu"


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize(
    ("driver", "index", "said", "asked"),
    [
        (True, True, ["PyTorch with CUDA, for the GPU"], False),
        (False, True, ["PyTorch without CUDA, as there is no NVIDIA driver"], True),
        (False, False, ["PyTorch without CUDA, as there", "it cannot be had there: PyTorch with CUDA instead"], True),
    ],
)
def test_builds_without_cuda_are_taken_without_a_driver(
    driver: bool, index: bool, said: list[str], asked: bool, tmp_path: Path
) -> None:
    for name, text in (("python", PYTHON), ("nvidia-smi", NVIDIA_SMI)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    codes = {"INDEX_CODE": "01"[not index], "DRIVER_CODE": "01"[not driver]}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "TORCH_INDEX": INDEX}
    done = subprocess.run(
        ["./setup.sh", tmp_path / "python", tmp_path / "venv"],
        cwd=PROJECT,
        env=os.environ | environment | codes,
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, last = done.stdout.splitlines()
    assert last == f"ready: {tmp_path / 'venv'}"
    assert len(lines) == len(said)
    assert all(line.startswith(begin) for line, begin in zip(lines, said, strict=True))
    calls = (tmp_path / "calls").read_text().splitlines()
    from_index = [call for call in calls if "--index-url" in call]
    assert len(from_index) == asked
    assert all(f"--index-url {INDEX} torch>=" in call and " torchvision>=" in call for call in from_index)
    assert any("-r requirements.txt" in call and "requirements-dev" not in call for call in calls)
