from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.windows import BackgroundWriter, compute_windows, delay_by_one
from rasters.raster import RawRaster
from utils import Window, tile

WINDOWS = tile(40, 30, 10)


def test_delay_by_one_yields_each_item_one_step_late() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            yield number

    assert [(item, len(made)) for item in delay_by_one(make())] == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(delay_by_one([])) == []


def test_windows_are_written_in_order(tmp_path: Path) -> None:
    shape = (40, 30)
    expected = np.zeros(shape, np.float32)
    raw = RawRaster(tmp_path / "raw", shape)
    raw.create()
    with BackgroundWriter(raw) as writer:
        for number, window in enumerate(tile(*shape, 16)):  # windows overlap: the later one wins
            values = np.full((window.height, window.width), number, np.float32)
            writer.write(window, values)
            expected[window.slices] = values
    np.testing.assert_array_equal(raw.read(Window(0, 0, 30, 40)), expected)


@pytest.mark.parametrize("windows", [1, 2])
def test_an_error_while_writing_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RawRaster, "write", fail)

    def write_all() -> None:
        with BackgroundWriter(RawRaster(tmp_path / "raw", (40, 30))) as writer:
            for window in WINDOWS[:windows]:
                writer.write(window, np.zeros((10, 10), np.float32))

    with pytest.raises(OSError, match="No space left"):
        write_all()


class NumberedWork:
    """Work that fills each window with its number, and records the order of the steps."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, int]] = []

    def read(self, window: Window) -> int:
        return WINDOWS.index(window)

    def compute(self, window: Window, item: int) -> Callable[[], np.ndarray]:
        self.notes.append(("computed", item))

        def finish() -> np.ndarray:
            self.notes.append(("finished", item))
            return np.full((window.height, window.width), item, np.float32)

        return finish


def test_windows_are_finished_while_the_next_one_is_computed(tmp_path: Path) -> None:
    work, done = NumberedWork(), []
    raw = RawRaster(tmp_path / "raw", (40, 30))
    raw.create()
    compute_windows(work.read, work.compute, WINDOWS, raw, lambda: done.append(len(work.notes)))
    assert [raw.read(window)[0, 0] for window in WINDOWS] == list(range(len(WINDOWS)))
    assert len(done) == len(WINDOWS)
    order = [("computed", 0)]
    for number in range(1, len(WINDOWS)):
        order += [("computed", number), ("finished", number - 1)]
    assert work.notes == [*order, ("finished", len(WINDOWS) - 1)]
    compute_windows(work.read, work.compute, [], raw, pytest.fail)
