"""Shared fixtures: the demo SAM, two small events, the outputs of a run over them, and a small disk."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything.modeling import Sam

import config
from sam.engine import SamEngine
from sam.models import load_model
from sam.weights import locate_weights
from tests.disks import mounted
from tests.scripts import CONTROL, DEMO_SAM, FEW_POINTS, FIRE, run_process
from tests.tiny_sam import tiny_sam
from utils import UsageError

STARTERS = {"run_process", "run_forked", "started", "run_get_event"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start scripts, browsers or clusters, by their modules and fixtures; see `make check`."""
    for item in items:
        assert isinstance(item, pytest.Function)
        if STARTERS & vars(item.module).keys() or {"finished", "alone"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end what was not tested, and how to have it tested."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"not tested: {count} tests: {reason}")


@pytest.fixture(scope="session")
def demo_model() -> Sam:
    """The demo SAM of segment_anything, as the reference."""
    return load_model("vit_demo", config.DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def demo_engine() -> SamEngine:
    # A separate model: the engine modifies it.
    model = load_model("vit_demo", config.DEMO_CHECKPOINT)
    return SamEngine(model, torch.device("cpu"))


@pytest.fixture(scope="session")
def tiny_engine() -> SamEngine:
    """A SAM with random weights, for tests that do not look at the masks."""
    return SamEngine(tiny_sam(), torch.device("cpu"))


@pytest.fixture(scope="session")
def mobile_sam() -> Path:
    """MobileSAM's official weights, 39 MB; fetched once."""
    try:
        weights = locate_weights("vit_t", None)
    except UsageError as error:
        pytest.skip(str(error))
    assert weights.origin == "official", weights
    return weights.path


@pytest.fixture(scope="session")
def small_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a labelled event, whose name is not ASCII, and a normal control; 256 x 256 pixels each."""
    from demo.make_events import DemoEvent, write_event  # needs GDAL, which machines with a GPU may lack

    root = tmp_path_factory.mktemp("small_events")
    for name in (FIRE, CONTROL):
        write_event(root, DemoEvent(name, seed=4), size=256)
    return root


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread: for small inputs, synchronization on a busy machine takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data_root(small_events: Path, tmp_path: Path) -> Path:
    """A copy of `small_events` that a test may change."""
    return Path(shutil.copytree(small_events, tmp_path / "data"))


@pytest.fixture
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.STAGE1_SAM_PARAMS, "points_per_side", 4)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 130 pixels in stage 2: four in an event of `small_events`."""
    monkeypatch.setattr(config, "STAGE2_PATCH_SIZE", 130)
    monkeypatch.setattr(config, "STAGE2_SMALL_PATCH_SIZE", 130)


@pytest.fixture(scope="session")
def finished(small_events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `stage1` and `stage2`, the outputs of `python run.py` for both events."""
    root = tmp_path_factory.mktemp("finished")
    roots = ("--stage1-root", root / "stage1", "--stage2-root", root / "stage2")
    done = run_process("run.py", "--stage", "all", "--data-root", small_events, *roots, *DEMO_SAM, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert "config: STAGE1_SAM_PARAMS" in done.stderr
    assert "both stages: 2 done, 0 skipped, 0 failed" in done.stderr
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with mounted(tmp_path / "disk", "size=1m") as folder:
        yield folder


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "anomalycd")
