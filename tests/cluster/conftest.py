"""Fixtures for the tests of the cluster."""

from pathlib import Path

import pytest

from tests.cluster.small_runs import SETTINGS, arguments
from tests.scripts import run_process


@pytest.fixture(scope="session")
def alone(small_events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a single process."""
    root = tmp_path_factory.mktemp("alone")
    done = run_process("run.py", *arguments(small_events, root), **SETTINGS)
    assert done.returncode == 0, done.stderr
    return root
