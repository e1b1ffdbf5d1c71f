"""Windows computed by a worker, in any order, equal those computed one after another bit for bit."""

import pickle
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import config
from benchmarks.stepwise import compute_windows
from img_io import ImageOptions
from pipeline import window_worker
from pipeline.feature_cache import FeatureCache
from pipeline.stage import Stage, StageProgress, StageRequest, advance
from pipeline.stage1 import Stage1Request, Stage1Settings
from pipeline.stage2 import Stage2Request, Stage2Settings
from pipeline.window_worker import WindowWorker
from sam.engine import SamEngine, ScaledImage
from sam.features import WindowFeatures
from sam.weights import SamIdentity
from tests.helpers import whole
from tests.scripts import CONTROL, FIRE
from utils import EventError, Window, read_event

pytestmark = pytest.mark.usefixtures("few_points", "any_mask", "small_windows", "one_thread")

WINDOW = 130  # pixels per side: an event of 256 pixels has 4 windows per stage
DATES = 5  # of each event
SAM = SamIdentity({"sam_model_type": "vit_demo"}, "sam_vit_demo.pth")


@pytest.fixture
def any_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep masks of any stability and size: a SAM with random weights finds no others."""
    for name, value in (("stability_score_thresh", 0.0), ("min_mask_region_area", 0)):
        monkeypatch.setitem(config.STAGE1_SAM_PARAMS, name, value)
    for name in ("STAGE1_MIN_MASK_PIXELS", "STAGE2_MIN_MASK_PIXELS"):
        monkeypatch.setattr(config, name, 100)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images in each call of the encoder."""
    calls: list[int] = []
    encode = SamEngine.encode

    def count(engine: SamEngine, images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        calls.append(len(images))
        return encode(engine, images)

    monkeypatch.setattr(SamEngine, "encode", count)
    return calls


def stages_of(data: Path, name: str, output: Path) -> list[StageRequest]:
    event, folder = read_event(data / name), output / name
    stage1 = Stage1Request(event, folder / "stage1", ImageOptions(), False, Stage1Settings(WINDOW))
    stage2 = Stage2Request(
        event, folder / "stage2", ImageOptions(), False, Stage2Settings(), stage1.folder / config.CHANGE_MAP_NAME
    )
    return [stage1, stage2]


def pixels(step: StageProgress) -> np.ndarray:
    """The raster of all windows of a step."""
    assert step.stage is not None
    return whole(step.stage.store())


def in_one_process(engine: SamEngine, stages: Sequence[StageRequest]) -> list[np.ndarray]:
    """The maps of both stages of an event, computed without a cluster."""
    maps = []
    step = advance(None, stages, SAM)
    with FeatureCache(stages[0].folder, Stage2Settings().tile((256, 256))) as cache:
        while step.stage is not None:
            compute_windows(step, engine, cache)
            maps.append(pixels(step))
            step = advance(step.stage, step.rest, SAM)
    return maps


class Caller:
    """Sends windows to a worker as a cluster does: with a key per stage, and the stage pickled."""

    def __init__(self, engine: SamEngine) -> None:
        self.worker = WindowWorker(lambda: engine, ThreadPoolExecutor(1))
        self.fetched: list[int] = []  # keys
        self._random = random.Random(0)

    def compute(self, key: int, prepared: Stage, windows: Sequence[Window], keep_features: bool = True) -> None:
        """Compute windows in random order."""
        sent = pickle.dumps(prepared)

        def fetch() -> Stage:
            self.fetched.append(key)
            return pickle.loads(sent)

        shuffled = self._random.sample(windows, len(windows))
        for stored in [self.worker.submit(key, fetch, window, keep_features) for window in shuffled]:
            stored.result()

    def step(self, key: int, step: StageProgress, keep_features: bool = True) -> tuple[np.ndarray, StageProgress]:
        """Compute all windows of a step; returns their raster and the next step."""
        assert step.stage is not None
        self.compute(key, step.stage, step.missing, keep_features)
        return pixels(step), pickle.loads(pickle.dumps(advance(step.stage, step.rest, SAM)))


@pytest.fixture
def expected(tiny_engine: SamEngine, small_events: Path, tmp_path: Path) -> list[np.ndarray]:
    """The maps of both stages of FIRE, computed in one process."""
    return in_one_process(tiny_engine, stages_of(small_events, FIRE, tmp_path / "one process"))


@pytest.mark.parametrize("keep_features", [True, False])
def test_maps_equal_those_of_a_single_process(
    tiny_engine: SamEngine,
    small_events: Path,
    tmp_path: Path,
    expected: list[np.ndarray],
    encoded: list[int],
    keep_features: bool,
) -> None:
    caller = Caller(tiny_engine)
    stages = stages_of(small_events, FIRE, tmp_path)
    first, step = caller.step(1, advance(None, stages, SAM), keep_features)
    assert encoded == 4 * [2]
    encoded.clear()
    second, step = caller.step(2, step, keep_features)
    assert sorted(encoded) == (4 * [DATES - 2] if keep_features else 4 * [2] + 4 * [DATES - 2])
    assert step == StageProgress([None])
    np.testing.assert_array_equal(first, expected[0], strict=True)
    np.testing.assert_array_equal(second, expected[1], strict=True)
    assert caller.fetched == [1, 2]
    assert (expected[1] > 0).any()
    for stage in stages:
        assert not list(stage.folder.glob(".*"))


def test_two_workers_share_an_event(
    tiny_engine: SamEngine, small_events: Path, tmp_path: Path, expected: list[np.ndarray], encoded: list[int]
) -> None:
    callers = [Caller(tiny_engine), Caller(tiny_engine)]
    step = advance(None, stages_of(small_events, FIRE, tmp_path), SAM)
    for key, of_stage in enumerate(expected):
        encoded.clear()
        assert step.stage is not None
        for number, caller in enumerate(callers):
            # In stage 2 each worker gets a window whose features it cached, and one that the other worker cached.
            windows = [step.missing[number], step.missing[2 + (number + key) % 2]]
            caller.compute(key, step.stage, windows)
        np.testing.assert_array_equal(pixels(step), of_stage, strict=True)
        step = advance(step.stage, step.rest, SAM)
    assert sorted(encoded) == 2 * [2] + 4 * [DATES - 2]


def test_dropped_features_are_computed_again(
    tiny_engine: SamEngine,
    small_events: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: list[np.ndarray],
    encoded: list[int],
) -> None:
    monkeypatch.setattr(window_worker, "EVENTS_CACHED", 1)
    caller = Caller(tiny_engine)
    _, step = caller.step(1, advance(None, stages_of(small_events, FIRE, tmp_path), SAM))
    other = advance(None, stages_of(small_events, CONTROL, tmp_path), SAM)
    assert other.stage is not None
    caller.compute(2, other.stage, other.missing[:1])
    encoded.clear()
    second, _ = caller.step(3, step)
    assert sorted(encoded) == 4 * [2] + 4 * [DATES - 2]
    np.testing.assert_array_equal(second, expected[1], strict=True)


def test_a_closed_stage_is_opened_again(
    tiny_engine: SamEngine,
    small_events: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: list[np.ndarray],
) -> None:
    monkeypatch.setattr(window_worker, "STAGES_OPEN", 1)
    caller = Caller(tiny_engine)
    steps = [advance(None, stages_of(small_events, name, tmp_path), SAM) for name in (FIRE, CONTROL)]
    for number in range(4):
        for key, step in enumerate(steps):
            assert step.stage is not None
            caller.compute(key, step.stage, step.missing[number : number + 1])
    assert caller.fetched == 4 * [0, 1]
    np.testing.assert_array_equal(pixels(steps[0]), expected[0], strict=True)


def test_a_failed_fetch_is_repeated(tiny_engine: SamEngine, small_events: Path, tmp_path: Path) -> None:
    def fail() -> Stage:
        raise OSError("a machine is gone")

    caller = Caller(tiny_engine)
    step = advance(None, stages_of(small_events, FIRE, tmp_path), SAM)
    assert step.stage is not None
    with pytest.raises(OSError, match="a machine is gone"):
        caller.worker.submit(1, fail, step.missing[0], True).result()
    caller.compute(1, step.stage, step.missing[:1])
    assert step.stage.store().finished() == {step.missing[0]}


@pytest.mark.parametrize("stage", [0, 1])
def test_a_changed_image_is_an_error_that_names_it(
    tiny_engine: SamEngine, data_root: Path, tmp_path: Path, encoded: list[int], stage: int
) -> None:
    caller = Caller(tiny_engine)
    step = advance(None, stages_of(data_root, FIRE, tmp_path / "maps"), SAM)
    for key in range(stage):
        _, step = caller.step(key, step)
    assert step.stage is not None
    encoded.clear()
    changed = step.stage.images.historical[0 if stage else -1].path
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(EventError, match="changed after the run began, or differs on this machine") as raised:
        caller.compute(stage, step.stage, step.missing[:1])
    assert str(raised.value).startswith(f"{changed}: ")
    assert not encoded
    assert not step.stage.store().finished()


def test_a_missing_image_is_an_error_that_names_it(tiny_engine: SamEngine, data_root: Path, tmp_path: Path) -> None:
    step = advance(None, stages_of(data_root, FIRE, tmp_path / "maps"), SAM)
    assert step.stage is not None
    missing = step.stage.images.monitor.path
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=missing.name):
        Caller(tiny_engine).compute(1, step.stage, step.missing[:1])
