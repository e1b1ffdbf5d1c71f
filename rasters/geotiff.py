"""Opens GeoTIFFs and PNGs, and no other format, with one GDAL handle per thread."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from osgeo import gdal, ogr, osr

import config
from utils import EventError, UsageError, Window, one_line

for module in (gdal, ogr, osr):
    module.UseExceptions()
# Settings of the shell, or of GDAL's configuration file, that would change results: cloud users often hide side files
# from GDAL, which loses masks and georeferencing. GDAL's defaults apply instead.
IGNORED_SETTINGS = (
    *("GDAL_DISABLE_READDIR_ON_OPEN", "GDAL_PAM_ENABLED", "GDAL_PAM_PROXY_DIR", "GDAL_GEOREF_SOURCES"),
    *("GTIFF_POINT_GEO_IGNORE", "GTIFF_HONOUR_NEGATIVE_SCALEY", "GTIFF_IGNORE_READ_ERRORS", "GTIFF_SRS_SOURCE"),
    *("GDAL_TIFF_INTERNAL_MASK", "GDAL_TIFF_ENDIANNESS", "GDAL_TIFF_OVR_BLOCKSIZE", "TIFF_USE_OVR", "USE_RRD"),
    *("COMPRESS_OVERVIEW", "INTERLEAVE_OVERVIEW", "PHOTOMETRIC_OVERVIEW", "PREDICTOR_OVERVIEW", "SPARSE_OK_OVERVIEW"),
    *("OSR_DEFAULT_AXIS_MAPPING_STRATEGY", "OGR_ENABLE_PARTIAL_REPROJECTION", "OGR_CT_FORCE_TRADITIONAL_GIS_ORDER"),
    *("OGR_SQLITE_JOURNAL", "OGR_SQLITE_PRAGMA", "OGR_CURRENT_DATE"),
)
for _name in IGNORED_SETTINGS:
    os.environ.pop(_name, None)
    gdal.SetConfigOption(_name, None)
osr.SetPROJEnableNetwork(False)  # else transformations would depend on a network, and wait for it


def _check_proj() -> None:
    """Raise UsageError if PROJ finds no usable database, often because another installation's is named."""
    try:
        osr.SpatialReference().ImportFromEPSG(4326)
    except RuntimeError as error:
        named = [f"{name} is {os.environ[name]}" for name in ("PROJ_DATA", "PROJ_LIB") if os.environ.get(name)]
        cure = f"{' and '.join(named)}: unset it" if named else "install proj-data, or set PROJ_DATA to its folder"
        raise UsageError(f"PROJ does not work ({one_line(error)}); {cure}") from None


_check_proj()  # before any work: without PROJ, every place would be unknown
# By default GDAL caches decoded blocks in 5 % of the machine's memory, so memory would grow with the raster. Maps are
# read in order, each block once. An image stored in strips is decoded once per column of windows; this takes seconds,
# while SAM takes minutes.
gdal.SetCacheMax(64 << 20)


# Errors are raised, warnings dropped. A handler in Python could block for ever: GDAL calls it with a lock held, and it
# waits for Python's lock, which another thread holds in a function of osr that waits for GDAL's.
gdal.SetErrorHandler("CPLQuietErrorHandler")

# For comparing CRSs: the axis order is GDAL's convention, not the file's.
IGNORE_AXIS_ORDER = ["IGNORE_DATA_AXIS_TO_SRS_AXIS_MAPPING=YES"]
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_BANDS = 100
# GDAL's drivers, and their options. Georeferencing inside a GeoTIFF takes precedence over files beside it.
OPEN_OPTIONS = {"GTiff": ["GEOREF_SOURCES=INTERNAL,PAM,WORLDFILE,TABFILE"], "PNG": []}
FORMAT_NAMES = {"GTiff": "GeoTIFF", "PNG": "PNG"}


class Georeference(NamedTuple):
    """The georeferencing of a raster; a field is None or empty if the file lacks it."""

    spatial_reference: osr.SpatialReference | None = None
    transform: tuple[float, ...] | None = None  # GDAL's six numbers
    gcps: tuple[gdal.GCP, ...] = ()  # ground control points
    gcp_spatial_reference: osr.SpatialReference | None = None
    rpcs: tuple[tuple[str, str], ...] = ()  # rational polynomial coefficients, GDAL's names and values
    area_or_point: str | None = None

    @property
    def crs(self) -> osr.SpatialReference | None:
        """The CRS of the coordinates: that of the transform, or else that of the ground control points."""
        has_transform = self.transform is not None or not self.gcps
        return (self.spatial_reference if has_transform else None) or self.gcp_spatial_reference


@contextmanager
def gdal_errors_named(path: Path) -> Iterator[None]:
    """Turn GDAL's errors into EventErrors that name the file: with a damaged file, any call can fail."""
    try:
        yield
    except RuntimeError as error:
        raise EventError(f"{path}: cannot be read, damaged or cut off ({gdal_reason(error, path)})") from None


def gdal_reason(error: RuntimeError, path: Path) -> str:
    """Return the message of one of GDAL's errors as one line, without the file's name at its beginning."""
    text = one_line(error).replace(str(path.absolute()), path.name)
    return text.removeprefix(f"{path.name}: ").removeprefix(f"{path.name}, ")


class RasterFile:
    """A raster that several threads can read. Raises EventErrors that name the file if it is damaged or cut off."""

    def __init__(self, path: Path, driver: str) -> None:
        """Open the file. Raises EventError if it is not of the driver's format, or too large to be read.

        `driver`: name of the only driver of GDAL that is tried, a key of OPEN_OPTIONS.
        """
        self.path = path
        self._driver = driver
        self._handles = threading.local()
        dataset = self.dataset
        self.shape = (dataset.RasterYSize, dataset.RasterXSize)  # height and width in pixels

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the handles: another process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "_handles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state; the file is opened when it is first read."""
        vars(self).update(state)
        self._handles = threading.local()

    @property
    def dataset(self) -> gdal.Dataset:
        """The handle of this thread: GDAL's handles are not thread-safe."""
        if not hasattr(self._handles, "dataset"):
            self._handles.dataset = self._open()
        return self._handles.dataset

    def _open(self) -> gdal.Dataset:
        """Open the file at `path`. A subclass may read it from elsewhere."""
        return _open(self.path, self._driver)

    @property
    def bands(self) -> list[gdal.Band]:
        """All bands. The pages of a TIFF count as bands; raises EventError if they are not bands of one image."""
        return [page.GetRasterBand(number) for page in self._pages for number in range(1, page.RasterCount + 1)]

    @property
    def _pages(self) -> list[gdal.Dataset]:
        """The handles of this thread for all pages, `dataset` first."""
        if not hasattr(self._handles, "pages"):
            self._handles.pages = [self.dataset, *_further_pages(self.path, self.dataset)]
        return self._handles.pages

    def read_bands(self, numbers: Sequence[int], window: Window) -> np.ndarray:
        """Read a window of several bands at once, (h, w, bands), since files interleave them. `numbers`: from 1."""
        with gdal_errors_named(self.path):
            if len(self._pages) > 1:
                return np.stack([self._pages[number - 1].ReadAsArray(*window) for number in numbers], axis=2)
            values = self.dataset.ReadAsArray(*window, band_list=list(numbers), interleave="pixel")
        return values.reshape(window.height, window.width, len(numbers))


class GeoTiff(RasterFile):
    """A GeoTIFF, with its georeferencing and its mask."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises EventError if it is not a GeoTIFF or too large to be read."""
        super().__init__(path, "GTiff")

    @property
    def georeference(self) -> Georeference:
        """The georeferencing of the file."""
        dataset = self.dataset
        with gdal_errors_named(self.path):
            rpcs = dataset.GetMetadata_Dict("RPC") or {}
            return Georeference(
                dataset.GetSpatialRef(),
                dataset.GetGeoTransform(can_return_null=True),
                tuple(dataset.GetGCPs()),
                dataset.GetGCPSpatialRef(),
                tuple(sorted(rpcs.items())),
                dataset.GetMetadataItem("AREA_OR_POINT"),
            )

    def read_mask(self, window: Window) -> np.ndarray:
        """Read a window of the first band's mask, (h, w) uint8: 0 where there is no data."""
        with gdal_errors_named(self.path):
            return self.dataset.GetRasterBand(1).GetMaskBand().ReadAsArray(*window)


def _open(path: Path, driver: str) -> gdal.Dataset:
    mask = path.with_name(f"{path.name}.msk")
    try:
        if mask.exists() and not _is_tiff(mask):  # else GDAL chooses the driver by the file's content
            raise EventError(f"{mask}: not a TIFF, but GDAL would read it as the mask of {path.name}; remove it")
        dataset = open_dataset(str(path.absolute()), driver, OPEN_OPTIONS[driver])
    except (RuntimeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else gdal_reason(error, path)
        raise EventError(f"{path}: cannot be opened as a {FORMAT_NAMES[driver]} ({reason})") from None
    check_size(path, dataset)
    return dataset


def _further_pages(path: Path, first: gdal.Dataset) -> list[gdal.Dataset]:
    """Open the second and all further pages of a TIFF, which must be one band each, like the first one."""
    listed = first.GetSubDatasets() if first.GetDriver().ShortName == "GTiff" else []
    pages = [open_dataset(name, "GTiff", OPEN_OPTIONS["GTiff"]) for name, _ in listed[1:]]
    kinds = {(page.RasterXSize, page.RasterYSize, page.GetRasterBand(1).DataType) for page in (first, *pages)}
    if pages and (len(kinds) > 1 or any(page.RasterCount != 1 for page in (first, *pages))):
        described = ", ".join(description for _, description in listed)
        raise EventError(
            f"{path}: its pages are not the bands of one image ({described}); write each page to a file of its own "
            "(gdal_translate GTIFF_DIR:1:FILE out.tif)"
        )
    return pages


def open_dataset(name: str, driver: str, options: Sequence[str]) -> gdal.Dataset:
    """Open a raster with one driver of GDAL. Raises RuntimeError if that driver cannot read it."""
    dataset = gdal.OpenEx(name, gdal.OF_RASTER | gdal.OF_READONLY, allowed_drivers=[driver], open_options=list(options))
    if dataset is None:  # rarely, GDAL raises no exception
        raise RuntimeError("unknown format")
    return dataset


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) in TIFF_MAGIC


def check_size(path: Path, dataset: gdal.Dataset) -> None:
    """Raise EventError for a header with an impossible size, before memory of that size is allocated."""
    width, height, count = dataset.RasterXSize, dataset.RasterYSize, dataset.RasterCount
    longest, most_bytes = config.MAX_IMAGE_SIDE, config.MAX_BLOCK_BYTES
    if max(width, height) > longest:
        raise EventError(
            f"{path}: {width} x {height} pixels; at most {longest} per side can be read; cut it into parts"
        )
    if not 0 < count <= MAX_BANDS:
        raise EventError(f"{path}: {count} bands; between 1 and {MAX_BANDS} can be read")
    band = dataset.GetRasterBand(1)
    block_width, block_height = band.GetBlockSize()
    interleaved = count if dataset.GetMetadataItem("INTERLEAVE", "IMAGE_STRUCTURE") == "PIXEL" else 1
    block_bytes = block_width * block_height * interleaved * gdal.GetDataTypeSize(band.DataType) // 8
    if block_bytes > most_bytes:
        raise EventError(
            f"{path}: stored in pieces of {block_width} x {block_height} pixels, {block_bytes >> 20} MiB each; "
            f"at most {most_bytes >> 20} MiB can be read at once; tile it (gdal_translate -co TILED=YES)"
        )
