from pathlib import Path

import numpy as np
import pytest

from evaluation.explanations import NOT_COMPARED
from pipeline.explanation import StoredExplanation, empty_table, region_table
from pipeline.window_store import ComputedWindow, WindowStore
from rasters.raster import MemoryRaster
from stage2_analysis import Similarities
from tests.helpers import whole
from utils import Window, owned_parts, tile

SHAPE = (6, 10)
LEFT, RIGHT = tile(*SHAPE, 6)  # they overlap in columns 4 and 5
NAN = np.nan


def similarities() -> Similarities:
    """Two regions: the second one is compared with the second date only."""
    with_monitor = np.array([[0.5, 0.25], [NAN, 0.75]])
    between = np.full((2, 2, 2), NAN)
    between[0, 0, 1] = between[0, 1, 0] = 0.875
    return Similarities(with_monitor, between)


def test_a_table_has_the_numbers_of_each_region() -> None:
    table = region_table(np.array([0.1, 0.2], np.float32), similarities(), dates=[0, 2], number=3)
    none = NOT_COMPARED
    expected = [[0.1, 0.5, none, 0.25, 0.125], [0.2, none, none, 0.75, none]]
    np.testing.assert_array_equal(table, np.array(expected, np.float32))
    assert empty_table(3).shape == (0, 5)


def stored(folder: Path, deepest: bool) -> StoredExplanation:
    """Two windows whose region of the same value has other similarities in each."""
    store = WindowStore(folder / ".windows", SHAPE, owned_parts((LEFT, RIGHT), deepest), {})
    store.begin()
    filtered = np.zeros(SHAPE, np.float32)
    filtered[:3] = 0.5
    filtered[3, :] = 0.25  # a region that was dropped
    filtered[:, 9] = NAN
    for window, similarity in ((LEFT, 0.1), (RIGHT, 0.2)):
        table = np.array([[0.5, similarity, 0.7]], np.float32)
        store.write(window, ComputedWindow(np.zeros((6, 6), np.float32), table))
    return StoredExplanation(store, MemoryRaster(filtered), ["a"])


@pytest.mark.parametrize(("deepest", "first_of_right"), [(False, 4), (True, 5)])
def test_each_window_paints_what_it_owns(tmp_path: Path, deepest: bool, first_of_right: int) -> None:
    painted = whole(stored(tmp_path, deepest))
    expected = np.zeros((*SHAPE, 2), np.float32)
    expected[:3, :first_of_right] = 0.1, 0.7
    expected[:3, first_of_right:] = 0.2, 0.7
    expected[:, 9] = NAN
    np.testing.assert_array_equal(painted, expected)
    part = Window(3, 1, 4, 4)
    np.testing.assert_array_equal(stored(tmp_path, deepest).read(part), expected[part.slices])


def test_a_window_is_not_finished_before_its_table_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = WindowStore(tmp_path / ".windows", SHAPE, owned_parts((LEFT, RIGHT)), {})
    store.begin()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        store.write(LEFT, ComputedWindow(np.zeros((6, 6), np.float32), empty_table(1)))
    assert not store.finished()
    assert [path.name for path in store.folder.iterdir()] == ["made_with.json"]
