import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raster_store import MemoryRaster, RasterStore, bands, read_bands
from tests.helpers import property_test
from tests.scripts import run_process
from utils import Window, tile

RNG = np.random.default_rng(0)
SHAPE = (90, 70)
VALUES = RNG.random(SHAPE, dtype=np.float32)
WHOLE = Window(0, 0, 70, 90)


# --- Bands -----------------------------------------------------------------------------------------------------------
@property_test
@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_bands_cover_a_raster_from_the_top(height: int, width: int) -> None:
    windows = list(bands((height, width)))
    assert [window.y for window in windows] == [0, *np.cumsum([window.height for window in windows])[:-1]]
    assert sum(window.height for window in windows) == height
    assert {(window.x, window.width) for window in windows} == {(0, width)}
    assert all(window.height % 256 == 0 for window in windows[:-1])
    assert all(4 * window.height * width <= 16 << 20 or window.height <= 256 for window in windows)


def test_bands_are_as_few_as_fit() -> None:
    assert [window.height for window in bands((3000, 4096))] == [1024, 1024, 952]
    assert [window.height for window in bands((300, 100_000))] == [256, 44]


def test_bands_of_an_array_are_its_rows() -> None:
    image = RNG.integers(0, 256, (600, 20_000, 3), dtype=np.uint8)
    raster = MemoryRaster(image)
    assert raster.shape == (600, 20_000)
    np.testing.assert_array_equal(np.concatenate(list(read_bands(raster))), image)


# --- The store -------------------------------------------------------------------------------------------------------
def test_windows_come_back_and_the_rest_is_zero(tmp_path: Path) -> None:
    expected = np.zeros_like(VALUES)
    with RasterStore(tmp_path / "new" / "map.raw", SHAPE) as store:
        np.testing.assert_array_equal(store.read(WHOLE), expected)
        for window in (Window(3, 5, 20, 30), Window(0, 50, 70, 40), Window(69, 89, 1, 1), Window(10, 0, 9, 60)):
            expected[window.slices] = VALUES[window.slices]
            store.write(window, VALUES[window.slices])
        for window in (WHOLE, Window(0, 45, 70, 9), Window(13, 21, 5, 60)):
            values = store.read(window)
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, expected[window.slices])


def test_a_file_that_was_there_is_forgotten_and_none_is_left(tmp_path: Path) -> None:
    path = tmp_path / "map.raw"
    path.write_bytes(b"left by a killed run")
    with RasterStore(path, (2, 2)) as store:
        assert not store.read(Window(0, 0, 2, 2)).any()
        assert path.stat().st_size == 16
    assert not path.exists()


def test_no_file_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RasterStore(tmp_path / "map.raw", (2, 2)):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_raster_takes_no_disk_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "map.raw"
    with RasterStore(path, (100_000, 1000)):
        assert path.stat().st_size == 400_000_000
        assert path.stat().st_blocks * 512 < 1 << 20


def test_threads_write_and_read_at_once(tmp_path: Path) -> None:
    windows = tile(*SHAPE, 8)
    with RasterStore(tmp_path / "map.raw", SHAPE) as store, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda window: store.write(window, VALUES[window.slices]), windows))
        for window, values in zip(windows, pool.map(store.read, windows), strict=True):
            np.testing.assert_array_equal(values, VALUES[window.slices])


def test_what_the_system_moves_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, values, offset: write(file, values[:7], offset))
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: read(file, [buffers[0][:5]], offset))
    with RasterStore(tmp_path / "map.raw", SHAPE) as store:
        store.write(WHOLE, VALUES)
        np.testing.assert_array_equal(store.read(WHOLE), VALUES)


@pytest.mark.parametrize("window", [Window(-1, 0, 2, 2), Window(0, -1, 2, 2), Window(69, 0, 2, 2), Window(0, 89, 2, 2)])
def test_windows_that_reach_beyond_the_raster_are_refused(tmp_path: Path, window: Window) -> None:
    with RasterStore(tmp_path / "map.raw", SHAPE) as store:
        with pytest.raises(ValueError, match="reaches beyond"):
            store.read(window)
        with pytest.raises(ValueError, match="reaches beyond"):
            store.write(window, VALUES[:2, :2])


@pytest.mark.parametrize("values", [VALUES[:2], VALUES[:2, :2].astype(np.float64)])
def test_values_of_another_kind_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    with RasterStore(tmp_path / "map.raw", SHAPE) as store, pytest.raises(ValueError, match="for Window"):
        store.write(Window(0, 0, 2, 2), values)


# --- Failures --------------------------------------------------------------------------------------------------------
def test_a_file_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "map.raw"
    with RasterStore(path, SHAPE) as store:
        os.truncate(path, 1000)
        with pytest.raises(OSError, match="cut off") as error:
            store.read(WHOLE)
    assert error.value.filename == str(path)


MAKE_ONE_THAT_MAY_NOT_BE = """
import resource, sys
from pathlib import Path
from raster_store import RasterStore

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    RasterStore(Path(sys.argv[1]), (100, 100)).__enter__()
except OSError as error:
    print(error)
"""


def test_a_file_that_may_not_be_so_large_is_an_error(tmp_path: Path) -> None:
    done = run_process("-c", MAKE_ONE_THAT_MAY_NOT_BE, tmp_path / "map.raw")
    assert "File too large" in done.stdout
    assert str(tmp_path / "map.raw") in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error(small_disk: Path) -> None:
    path = small_disk / "map.raw"
    with RasterStore(path, (1000, 1000)) as store, pytest.raises(OSError, match="No space left") as error:
        store.write(Window(0, 0, 1000, 1000), np.ones((1000, 1000), np.float32))
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(path)
    assert not list(small_disk.iterdir())
