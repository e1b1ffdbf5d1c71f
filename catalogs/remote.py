"""Opens the GeoTIFFs of items with GDAL, at addresses or in local files, from the overview that fits a grid."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import requests
from osgeo import gdal

import config
from catalogs.addresses import gdal_path, is_web
from catalogs.retries import BUSY, NetworkError, asked_pause, network_reason, with_retries
from rasters.gdal_output import gdal_options
from rasters.geotiff import GeoTiff, check_size, open_dataset
from rasters.image_file import ImageFile
from rasters.place import Grid, find_grid
from rasters.warp import pixel_steps
from utils import EventError, Window, hide_secrets, one_line

Result = TypeVar("Result")
AGAIN = "run the same command again later, it fetches what is missing"
NO_SUCH_RANGE = 416  # of an empty file
CREDENTIALS = ("GDAL_HTTP_HEADER_FILE", "GDAL_HTTP_HEADERS", "GDAL_HTTP_BEARER", "GDAL_HTTP_USERPWD")  # of GDAL only
# Only the file itself is read, nothing beside it; no driver but GeoTIFF's is tried.
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_CACHE_SIZE": str(128 << 20),  # neighbouring windows share tiles
    "GDAL_HTTP_TIMEOUT": str(config.CATALOG_TIMEOUT),
    "GDAL_HTTP_CONNECTTIMEOUT": str(config.CATALOG_TIMEOUT),
    # A read takes many requests, so that GDAL repeats each one once; the rest is left to `_with_retries`.
    "GDAL_HTTP_MAX_RETRY": "1",
    "GDAL_HTTP_RETRY_DELAY": str(config.CATALOG_PAUSE),
}


def remote_files() -> AbstractContextManager[None]:
    """Set GDAL's options for reading files on the network, in all threads, for a block."""
    return gdal_options(GDAL_OPTIONS, gdal.SetConfigOption)


class Asset(NamedTuple):
    """A GeoTIFF of an item."""

    name: str  # for messages
    address: str  # resolved
    signed_for: str | None  # see gdal_path


class _RemoteTiff(GeoTiff):
    """A GeoTIFF at an address. Repeats requests that a network or a busy server made fail."""

    def __init__(self, asset: Asset, level: int | None, *arguments: Any) -> None:
        """Open the file. `level`: number of an overview; None: full resolution."""
        self._asset, self._level = asset, level
        super().__init__(Path(asset.name), *arguments)

    def _open(self) -> gdal.Dataset:
        options = [] if self._level is None else [f"OVERVIEW_LEVEL={self._level}"]
        path = gdal_path(self._asset.address, self._asset.signed_for)

        def attempt() -> gdal.Dataset:
            try:
                return open_dataset(path, "GTiff", ["GEOREF_SOURCES=INTERNAL", *options])
            except RuntimeError as error:
                raise EventError(f"{self.path}: cannot be opened as a GeoTIFF ({one_line(error)})") from None

        dataset = self._with_retries(attempt)
        # GDAL would open the file that this item names as overviews, with any driver.
        if dataset.GetMetadataItem("OVERVIEW_FILE", "OVERVIEWS"):
            raise EventError(f"{self.path}: names another file as its overviews, which is not read")
        check_size(self.path, dataset)
        return dataset

    def read_bands(self, numbers: Sequence[int], window: Window) -> np.ndarray:
        """Read a window of several bands; see RasterFile."""
        return self._with_retries(lambda: super(_RemoteTiff, self).read_bands(numbers, window))

    def read_mask(self, window: Window) -> np.ndarray:
        """Read a window of the mask; see GeoTiff."""
        return self._with_retries(lambda: super(_RemoteTiff, self).read_mask(window))

    def _with_retries(self, read: Callable[[], Result]) -> Result:
        """Return what `read` returns; call it again while its failure may be due to the network."""
        failures, is_busy = 0, False

        def attempt() -> Result:
            nonlocal failures, is_busy
            if is_busy:
                self._check_server()  # takes one request, where GDAL would send several
            is_busy = False
            try:
                return read()
            except EventError as error:
                failures += 1
                # GDAL remembers what it could not read.
                vars(self._handles).pop("dataset", None)
                gdal.VSICurlPartialClearCache(gdal_path(self._asset.address, self._asset.signed_for))
                is_busy = True
                self._check_server(str(error))
                is_busy = False
                if failures < config.CATALOG_ATTEMPTS:
                    raise NetworkError(f"{self.path}: the connection broke") from None
                raise EventError(hide_secrets(str(error))) from None

        if not is_web(self._asset.address) or getattr(self._handles, "is_retrying", False):
            return read()  # on the network: opened again within a read, which is repeated as a whole
        self._handles.is_retrying = True
        try:
            return with_retries(attempt)
        finally:
            self._handles.is_retrying = False

    def _check_server(self, failure: str = "") -> None:
        """Find out why reads fail: GDAL does not say it.

        Raises EventError if the server refuses the file, NetworkError if it is busy or cannot be reached. `failure`:
        GDAL's message; it alone counts where GDAL has credentials that this program does not have.
        """
        if self._asset.signed_for is not None or any(gdal.GetConfigOption(name) for name in CREDENTIALS):
            if re.search(r"\b(429|50[0234])\b", failure):
                raise NetworkError(f"{self.path}: the server is busy; {AGAIN}")
            return
        try:
            with requests.get(
                self._asset.address, headers={"Range": "bytes=0-0"}, timeout=config.CATALOG_TIMEOUT, stream=True
            ) as answer:
                code, pause = answer.status_code, asked_pause(answer.headers)
        except requests.RequestException as error:
            reason = network_reason(error)
            raise NetworkError(f"{self.path}: the server cannot be reached ({reason}); {AGAIN}") from None
        if code in BUSY:
            raise NetworkError(f"{self.path}: the server is busy (HTTP {code}); {AGAIN}", pause)
        if code >= 400 and code != NO_SUCH_RANGE:
            raise EventError(f"{self.path}: {hide_secrets(self._asset.address)}: the server refuses it (HTTP {code})")


class RemoteImage(_RemoteTiff, ImageFile):
    """The image of an item."""

    def read_marked(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w, 3) float32, NaN where there is no data.

        In a file that declares no gaps, black in all bands counts as one.
        """
        values = self.read_with_gaps(window)
        if not self.may_lack_data:
            values[(values == 0).all(axis=2)] = np.nan
        return values


class RemoteMask(_RemoteTiff):
    """One band of numbers, such as classes or probabilities."""

    def read_values(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w, 1) float32."""
        return self.read_bands([1], window).astype(np.float32)


def grid_of(file: GeoTiff) -> Grid:
    """Return the grid of a file. Raises EventError if it is not georeferenced."""
    grid = find_grid(file.georeference, file.shape)
    if grid is None or grid.crs is None or gdal.InvGeoTransform(grid.transform) is None:
        raise EventError(f"{file.path}: is not georeferenced")
    return grid


def open_image(asset: Asset, bands: Sequence[int] | None, grid: Grid | None = None) -> RemoteImage:
    """Open the image of an item, from the overview that fits a grid; without a grid, at full resolution.

    Raises EventError if the file is not a georeferenced GeoTIFF with three or more bands.
    """
    full = RemoteImage(asset, None, bands)
    level = None if grid is None else _level(full, grid, config.MIN_IMAGE_SIDE)
    return full if level is None else RemoteImage(asset, level, bands)


def open_mask(asset: Asset, grid: Grid) -> RemoteMask:
    """Open a mask of an item, from the overview that fits a grid.

    Raises EventError if it is no georeferenced GeoTIFF.
    """
    full = RemoteMask(asset, None)
    level = _level(full, grid, 1)
    return full if level is None else RemoteMask(asset, level)


def _level(file: GeoTiff, grid: Grid, least_side: int) -> int | None:
    """Return the number of the coarsest overview with pixels not larger than the grid's; None: full resolution."""
    steps = pixel_steps(grid_of(file), grid)
    band = file.dataset.GetRasterBand(1)
    best, best_factor = None, 1.0
    for number in range(band.GetOverviewCount()):
        overview = band.GetOverview(number)
        factor = file.shape[1] / overview.XSize
        # Sizes are rounded up, so that factors are a little below those that the file was made with.
        if best_factor < factor <= min(steps) * 1.01 and min(overview.XSize, overview.YSize) >= least_side:
            best, best_factor = number, factor
    return best


def stored_bytes(file: GeoTiff, window: Window) -> int:
    """Return the size of a file's tiles that a window needs, as they are stored."""
    band = file.dataset.GetRasterBand(1)
    width, height = band.GetBlockSize()
    planes = 1
    if file.dataset.GetMetadataItem("INTERLEAVE", "IMAGE_STRUCTURE") != "PIXEL":
        planes = file.dataset.RasterCount
    sizes = (
        band.GetMetadataItem(f"BLOCK_SIZE_{x}_{y}", "TIFF")
        for y in range(window.y // height, (window.y + window.height - 1) // height + 1)
        for x in range(window.x // width, (window.x + window.width - 1) // width + 1)
    )
    return planes * sum(int(size) for size in sizes if size)
