import errno
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasters.raster import MemoryRaster, RawRaster, blocks, read_ahead, read_strips, strips
from tests.helpers import property_test
from tests.scripts import run_process
from utils import Window, tile

RNG = np.random.default_rng(0)
SHAPE = (90, 70)
VALUES = RNG.random(SHAPE, dtype=np.float32)
WHOLE = Window(0, 0, 70, 90)


# --- Strips ----------------------------------------------------------------------------------------------------------
@property_test
@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_strips_cover_a_raster_from_the_top(height: int, width: int) -> None:
    windows = list(strips((height, width)))
    assert [window.y for window in windows] == [0, *np.cumsum([window.height for window in windows])[:-1]]
    assert sum(window.height for window in windows) == height
    assert {(window.x, window.width) for window in windows} == {(0, width)}
    assert all(window.height % 256 == 0 for window in windows[:-1])
    assert all(4 * window.height * width <= 8 << 20 or window.height <= 256 for window in windows)


def test_strips_are_as_high_as_allowed() -> None:
    assert [window.height for window in strips((1500, 4096))] == [512, 512, 476]
    assert [window.height for window in strips((300, 100_000))] == [256, 44]


@property_test
@given(st.integers(1, 3000), st.integers(1, 20_000), st.integers(1, 30))
def test_blocks_cover_a_raster_of_several_bands_in_tiles(height: int, width: int, bands: int) -> None:
    windows = list(blocks((height, width), bands))
    if bands == 1:
        assert windows == list(strips((height, width)))
        return
    times = np.zeros((-(-height // 256), -(-width // 256)), int)
    for x, y, columns, rows in windows:
        assert 4 * columns * rows * bands <= 8 << 20
        assert x % 256 == y % 256 == 0
        assert columns % 256 == 0 or x + columns == width
        times[y // 256 : -(-(y + rows) // 256), x // 256 : -(-(x + columns) // 256)] += 1
    assert (times == 1).all()


def test_strips_of_an_array_are_its_rows() -> None:
    image = RNG.integers(0, 256, (600, 20_000, 3), dtype=np.uint8)
    raster = MemoryRaster(image)
    assert raster.shape == (600, 20_000)
    np.testing.assert_array_equal(np.concatenate(list(read_strips(raster))), image)


# --- Reading ahead ---------------------------------------------------------------------------------------------------
WINDOWS = tile(40, 30, 10)


@pytest.mark.parametrize("threads", [1, 3, 20])
def test_read_ahead_yields_each_window_with_its_data(threads: int) -> None:
    read = read_ahead(lambda window: window.x + window.y, iter(WINDOWS), threads)
    assert list(read) == [(window, window.x + window.y) for window in WINDOWS]
    assert list(read_ahead(lambda window: window, [], threads)) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_next_windows_are_read_in_the_background(threads: int) -> None:
    begun = {window: threading.Event() for window in WINDOWS}
    for position, (_, _) in enumerate(read_ahead(lambda window: begun[window].set(), WINDOWS, threads)):
        so_far = position + 1 + threads
        for window in WINDOWS[:so_far]:
            assert begun[window].wait(timeout=60)
        assert not any(begun[window].is_set() for window in WINDOWS[so_far:])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_read_error_is_raised_at_its_window(threads: int) -> None:
    def read(window: Window) -> Window:
        if window == WINDOWS[2]:
            raise OSError("damaged")
        return window

    seen: list[Window] = []
    with pytest.raises(OSError, match="damaged"):
        seen.extend(window for window, _ in read_ahead(read, WINDOWS, threads))
    assert seen == WINDOWS[:2]


# --- Plain files -----------------------------------------------------------------------------------------------------
@pytest.fixture
def raw(tmp_path: Path) -> RawRaster:
    raster = RawRaster(tmp_path / "map.raw", SHAPE)
    raster.create()
    return raster


def test_windows_are_read_back_and_the_rest_is_zero(raw: RawRaster) -> None:
    expected = np.zeros_like(VALUES)
    np.testing.assert_array_equal(raw.read(WHOLE), expected)
    for window in (Window(3, 5, 20, 30), Window(0, 50, 70, 40), Window(69, 89, 1, 1), Window(10, 0, 9, 60)):
        expected[window.slices] = VALUES[window.slices]
        raw.write(window, VALUES[window.slices])
    for window in (WHOLE, Window(0, 45, 70, 9), Window(13, 21, 5, 60)):
        values = raw.read(window)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected[window.slices])


def test_create_overwrites_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "map.raw"
    path.write_bytes(b"left by a killed run")
    raster = RawRaster(path, (2, 2))
    raster.create()
    assert not raster.read(Window(0, 0, 2, 2)).any()
    assert path.stat().st_size == 16


def test_create_makes_a_sparse_file(tmp_path: Path) -> None:
    path = tmp_path / "map.raw"
    RawRaster(path, (100_000, 1000)).create()
    assert path.stat().st_size == 400_000_000
    assert path.stat().st_blocks * 512 < 1 << 20


def test_threads_write_and_read_concurrently(raw: RawRaster) -> None:
    windows = tile(*SHAPE, 8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda window: raw.write(window, VALUES[window.slices]), windows))
        for window, values in zip(windows, pool.map(raw.read, windows), strict=True):
            np.testing.assert_array_equal(values, VALUES[window.slices])


def test_a_raster_can_be_pickled(raw: RawRaster) -> None:
    raw.write(WHOLE, VALUES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(raw)).read(WHOLE), VALUES)


def test_partial_reads_and_writes_are_continued(raw: RawRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, values, offset: write(file, values[:7], offset))
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: read(file, [buffers[0][:5]], offset))
    raw.write(WHOLE, VALUES)
    np.testing.assert_array_equal(raw.read(WHOLE), VALUES)


@pytest.mark.parametrize("window", [Window(-1, 0, 2, 2), Window(0, -1, 2, 2), Window(69, 0, 2, 2), Window(0, 89, 2, 2)])
def test_windows_beyond_the_raster_are_refused(raw: RawRaster, window: Window) -> None:
    with pytest.raises(ValueError, match="reaches beyond"):
        raw.read(window)
    with pytest.raises(ValueError, match="reaches beyond"):
        raw.write(window, VALUES[:2, :2])


@pytest.mark.parametrize("values", [VALUES[:2], VALUES[:2, :2].astype(np.float64)])
def test_values_of_another_shape_or_type_are_refused(raw: RawRaster, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="for Window"):
        raw.write(Window(0, 0, 2, 2), values)


# --- Failures --------------------------------------------------------------------------------------------------------
def test_a_truncated_file_is_an_error(raw: RawRaster) -> None:
    os.truncate(raw.path, 1000)
    with pytest.raises(OSError, match="file is truncated") as error:
        raw.read(WHOLE)
    assert error.value.filename == str(raw.path)


CREATE_BEYOND_SIZE_LIMIT = """
import resource, sys
from pathlib import Path
from rasters.raster import RawRaster

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    RawRaster(Path(sys.argv[1]), (100, 100)).create()
except OSError as error:
    print(error)
"""


def test_a_file_beyond_the_size_limit_is_an_error(tmp_path: Path) -> None:
    done = run_process("-c", CREATE_BEYOND_SIZE_LIMIT, tmp_path / "map.raw")
    assert "File too large" in done.stdout
    assert str(tmp_path / "map.raw") in done.stdout


def test_a_full_disk_is_an_error(small_disk: Path) -> None:
    raster = RawRaster(small_disk / "map.raw", (1000, 1000))
    raster.create()
    with pytest.raises(OSError, match="No space left") as error:
        raster.write(Window(0, 0, 1000, 1000), np.ones((1000, 1000), np.float32))
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(raster.path)
