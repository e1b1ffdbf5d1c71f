import json
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pipeline.window_store import HEADER_NAME, ComputedWindow, WindowStore
from tests.helpers import whole
from utils import Window, owned_parts, tile

SHAPE = (40, 30)
WINDOWS = tile(*SHAPE, 16)
VALUES = np.random.default_rng(0).random(SHAPE, np.float32)
MADE_WITH = {"patch_size": 16, "images": {"a.tif": (1, 2)}}


def store_of(path: Path) -> WindowStore:
    return WindowStore(path / ".a.windows", SHAPE, owned_parts(WINDOWS), MADE_WITH)


def interrupted_store(path: Path, windows: int) -> Path:
    """Interrupt a run after `windows` windows; returns the store's folder."""
    store = store_of(path)
    with suppress(KeyboardInterrupt), store.removed_if_empty():
        store.begin()
        for window in WINDOWS[:windows]:
            store.write(window, ComputedWindow(VALUES[window.slices]))
        raise KeyboardInterrupt
    return store.folder


def test_a_finished_store_holds_all_windows_and_can_be_removed(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    with store.removed_if_empty():
        assert not store.begin()
        for window in reversed(WINDOWS):
            store.write(window, ComputedWindow(VALUES[window.slices]))
    np.testing.assert_array_equal(whole(store), VALUES)
    for window in (Window(3, 5, 20, 30), Window(15, 0, 2, 40), Window(29, 39, 1, 1)):
        np.testing.assert_array_equal(store.read(window), VALUES[window.slices])
    store.remove()
    assert not list(tmp_path.iterdir())


def test_the_later_window_wins_in_any_write_order(tmp_path: Path) -> None:
    expected = np.zeros(SHAPE, np.float32)
    for number, window in enumerate(WINDOWS):
        expected[window.slices] = number
    store = store_of(tmp_path)
    store.begin()
    for number, window in reversed(list(enumerate(WINDOWS))):
        store.write(window, ComputedWindow(np.full((window.height, window.width), number, np.float32)))
    np.testing.assert_array_equal(whole(store), expected)


def test_several_processes_write_windows(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    store.begin()
    others = [pickle.loads(pickle.dumps(store)) for _ in range(2)]
    for number, window in enumerate(WINDOWS):
        others[number % 2].write(window, ComputedWindow(VALUES[window.slices]))
    # A duplicate from a worker that was considered lost.
    others[0].write(WINDOWS[1], ComputedWindow(VALUES[WINDOWS[1].slices]))
    assert store.finished() == set(WINDOWS)
    np.testing.assert_array_equal(whole(store), VALUES)


def test_an_unfinished_window_cannot_be_read(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    store.begin()
    store.write(WINDOWS[0], ComputedWindow(VALUES[WINDOWS[0].slices]))
    alone = Window(0, 0, 14, 16)  # the rest belongs to the next windows
    np.testing.assert_array_equal(store.read(alone), VALUES[alone.slices])
    with pytest.raises(FileNotFoundError):
        whole(store)


def test_an_interrupted_store_is_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interrupted_store(tmp_path, 4)
    store = store_of(tmp_path)
    assert store.begin() == set(WINDOWS[:4])
    for window in WINDOWS[4:]:
        store.write(window, ComputedWindow(VALUES[window.slices]))
    np.testing.assert_array_equal(whole(store), VALUES)
    assert f"4 of {len(WINDOWS)} windows already finished" in caplog.text


def test_a_store_without_finished_windows_is_removed(tmp_path: Path) -> None:
    interrupted_store(tmp_path, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 1, 4 * 16 * 16 - 1])
def test_a_truncated_window_is_not_finished(tmp_path: Path, size: int) -> None:
    folder = interrupted_store(tmp_path, 3)
    with open(folder / "0_0_16_16", "rb+") as file:
        file.truncate(size)
    store = store_of(tmp_path)
    assert store.begin() == set(WINDOWS[1:3])
    for window in [WINDOWS[0], *WINDOWS[3:]]:
        store.write(window, ComputedWindow(VALUES[window.slices]))
    np.testing.assert_array_equal(whole(store), VALUES)


@pytest.mark.parametrize(
    ("made_with", "shape", "reason"),
    [
        (MADE_WITH | {"patch_size": 8}, SHAPE, "are computed again, its settings differ: patch_size"),
        (MADE_WITH | {"precision": "bf16"}, SHAPE, "are computed again, its settings differ: precision"),
        (MADE_WITH, (41, 30), "are computed again, its settings differ: shape"),
    ],
)
def test_a_store_with_other_settings_is_discarded(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    made_with: dict[str, object],
    shape: tuple[int, int],
    reason: str,
) -> None:
    interrupted_store(tmp_path, 3)
    store = WindowStore(tmp_path / ".a.windows", shape, owned_parts(tile(*shape, 16)), made_with)
    assert not store.begin()
    assert list(tmp_path.iterdir()) == [store.folder]
    assert reason in caplog.text


def test_a_process_of_a_discarded_store_cannot_write(tmp_path: Path) -> None:
    left = store_of(tmp_path)
    left.begin()
    store = WindowStore(tmp_path / ".a.windows", SHAPE, owned_parts(WINDOWS), MADE_WITH | {"precision": "bf16"})
    store.begin()
    with pytest.raises(FileNotFoundError):
        left.write(WINDOWS[0], ComputedWindow(VALUES[WINDOWS[0].slices]))
    assert not store.finished()


@pytest.mark.parametrize("content", [b"\0\xff", b"[]", b"{"])
def test_a_damaged_header_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    folder = interrupted_store(tmp_path, 3)
    (folder / HEADER_NAME).write_bytes(content)
    other = WindowStore(tmp_path / ".a.windows", SHAPE, owned_parts(WINDOWS), {})
    assert not other.begin()
    assert "are computed again, its settings differ: header" in caplog.text
    folder = interrupted_store(tmp_path, 3)
    (folder / HEADER_NAME).write_bytes(content)
    store = store_of(tmp_path)
    assert store.begin() == set(WINDOWS[:3])
    assert json.loads((folder / HEADER_NAME).read_text())["patch_size"] == 16


def test_a_full_disk_is_an_error_and_finished_windows_are_kept(small_disk: Path) -> None:
    side = 600  # 1.4 MB
    windows = tile(side, side, 200)

    def store() -> WindowStore:
        return WindowStore(small_disk / ".a.windows", (side, side), owned_parts(windows), {})

    def fill() -> None:
        filled = store()
        with filled.removed_if_empty():
            filled.begin()
            for window in windows:
                filled.write(window, ComputedWindow(np.ones((200, 200), np.float32)))

    with pytest.raises(OSError, match="No space left"):
        fill()
    finished = store().begin()
    assert finished == set(windows[: len(finished)]) != set()
    assert not list(small_disk.rglob("*.part"))
