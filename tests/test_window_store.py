from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import whole
from utils import tile
from window_store import WindowStore

SHAPE = (40, 30)
WINDOWS = tile(*SHAPE, 16)
VALUES = np.random.default_rng(0).random(SHAPE, np.float32)
MADE_WITH = {"patch_size": 16, "images": {"a.tif": (1, 2)}}


def interrupted(path: Path, windows: int) -> None:
    """A store whose run ends after so many windows."""
    with suppress(KeyboardInterrupt), WindowStore(path, SHAPE, WINDOWS, MADE_WITH) as store:
        for window in WINDOWS[:windows]:
            store.write(window, VALUES[window.slices])
        raise KeyboardInterrupt


def test_a_finished_store_is_whole_and_leaves_nothing(tmp_path: Path) -> None:
    with WindowStore(tmp_path / "a.windows", SHAPE, WINDOWS, MADE_WITH) as store:
        for window in reversed(WINDOWS):
            store.write(window, VALUES[window.slices])
        np.testing.assert_array_equal(whole(store), VALUES)
    assert not list(tmp_path.iterdir())


def test_the_later_window_wins_whatever_the_order(tmp_path: Path) -> None:
    expected = np.zeros(SHAPE, np.float32)
    for number, window in enumerate(WINDOWS):
        expected[window.slices] = number
    with WindowStore(tmp_path / "a.windows", SHAPE, WINDOWS, MADE_WITH) as store:
        for number, window in reversed(list(enumerate(WINDOWS))):
            store.write(window, np.full((window.height, window.width), number, np.float32))
        np.testing.assert_array_equal(whole(store), expected)


def test_an_interrupted_store_is_picked_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interrupted(tmp_path / "a.windows", 4)
    with WindowStore(tmp_path / "a.windows", SHAPE, WINDOWS, MADE_WITH) as store:
        assert store.finished == set(WINDOWS[:4])
        for window in WINDOWS[4:]:
            store.write(window, VALUES[window.slices])
        np.testing.assert_array_equal(whole(store), VALUES)
    assert f"4 of {len(WINDOWS)} windows are there already" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_store_without_a_finished_window_leaves_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path / "a.windows", 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path, cut: int) -> None:
    interrupted(tmp_path / "a.windows", 3)
    journal = tmp_path / "a.journal"
    journal.write_bytes(journal.read_bytes()[:-cut])
    for finished in (2, 3):  # it does not spoil the next one either
        with suppress(KeyboardInterrupt), WindowStore(tmp_path / "a.windows", SHAPE, WINDOWS, MADE_WITH) as store:
            assert store.finished == set(WINDOWS[:finished])
            store.write(WINDOWS[2], VALUES[WINDOWS[2].slices])
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("made_with", "shape", "reason"),
    [
        (MADE_WITH | {"patch_size": 8}, SHAPE, "with another patch_size are computed again"),
        (MADE_WITH | {"precision": "bf16"}, SHAPE, "with another precision are computed again"),
        (MADE_WITH, (41, 30), "with another shape are computed again"),
    ],
)
def test_a_store_of_another_run_is_discarded(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    made_with: dict[str, object],
    shape: tuple[int, int],
    reason: str,
) -> None:
    interrupted(tmp_path / "a.windows", 3)
    with WindowStore(tmp_path / "a.windows", shape, tile(*shape, 16), made_with) as store:
        assert not store.finished
        assert not whole(store).any()
    assert reason in caplog.text


@pytest.mark.parametrize("damage", ["journal", "windows"])
def test_a_damaged_store_is_discarded(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    interrupted(tmp_path / "a.windows", 3)
    (tmp_path / f"a.{damage}").write_bytes(b"\0\xff")
    with WindowStore(tmp_path / "a.windows", SHAPE, WINDOWS, MADE_WITH) as store:
        assert not store.finished
    assert "is damaged; its windows are computed again" in caplog.text


def test_a_journal_without_pixels_is_discarded(tmp_path: Path) -> None:
    interrupted(tmp_path / "a.windows", 3)
    (tmp_path / "a.windows").unlink()
    with WindowStore(tmp_path / "a.windows", SHAPE, WINDOWS, MADE_WITH) as store:
        assert not store.finished


def test_a_full_disk_is_an_error_and_what_is_finished_stays(small_disk: Path) -> None:
    side = 600  # 1.4 MB
    windows = tile(side, side, 200)
    path = small_disk / "a.windows"

    def fill() -> None:
        with WindowStore(path, (side, side), windows, {}) as store:
            for window in windows:
                store.write(window, np.ones((200, 200), np.float32))

    with pytest.raises(OSError, match="No space left"):
        fill()
    with suppress(KeyboardInterrupt), WindowStore(path, (side, side), windows, {}) as store:
        assert store.finished == set(windows[: len(store.finished)]) != set()
        raise KeyboardInterrupt
