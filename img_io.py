"""Reads and writes rasters: the only module that touches GDAL.

This version takes 8-bit RGB GeoTIFFs whose dates share one grid, and refuses everything else by name (docs/data.md).
"""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from osgeo import gdal, gdal_array, osr

from raster_store import MemoryRaster, Raster, bands, read_bands
from utils import LOG, EventError, Window, tile, whole_file

gdal.UseExceptions()
# GDAL keeps decoded blocks in up to 5 % of the machine's memory: what a run takes would depend on the machine, and grow
# with the raster. Maps are read in order, no block twice. An image in strips is decoded anew for each column of
# windows, which takes seconds where SAM takes minutes.
gdal.SetCacheMax(64 << 20)

PARAMETERS_TAG = "ANOMALYCD_PARAMETERS"
BLOCK = 2048  # side of the windows that a whole raster is scanned by
GRID_TOLERANCE = 0.5  # pixels that the corners of two dates may lie apart


class Georeference(NamedTuple):
    """Where a raster lies; None where it does not say."""

    spatial_reference: osr.SpatialReference | None
    transform: tuple[float, ...] | None  # GDAL's six numbers


@dataclass(frozen=True)
class _GeoTiff:
    """An open GeoTIFF."""

    path: Path
    dataset: gdal.Dataset

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.dataset.RasterYSize, self.dataset.RasterXSize


class Image(_GeoTiff):
    """An open 8-bit RGB GeoTIFF."""

    @property
    def georeference(self) -> Georeference:
        """CRS and transform, as the file gives them."""
        return Georeference(self.dataset.GetSpatialRef(), self.dataset.GetGeoTransform(can_return_null=True))


def _open(path: Path) -> gdal.Dataset:
    try:
        return gdal.OpenEx(str(path), gdal.OF_RASTER | gdal.OF_READONLY, allowed_drivers=["GTiff"])
    except RuntimeError as error:
        raise EventError(f"{path}: cannot be opened as a GeoTIFF ({error})") from None


def _read(path: Path, dataset: gdal.Dataset | gdal.Band, *area: int) -> np.ndarray:
    try:
        return dataset.ReadAsArray(*area)
    except RuntimeError as error:
        raise EventError(f"{path}: cannot be read, damaged or cut off ({error})") from None


def open_image(path: Path) -> Image:
    """Open an 8-bit RGB GeoTIFF. Raises EventError for any other file, and for one that holds nodata pixels."""
    dataset = _open(path)
    kinds = {gdal.GetDataTypeName(dataset.GetRasterBand(b + 1).DataType) for b in range(dataset.RasterCount)}
    if dataset.RasterCount != 3 or kinds != {"Byte"}:
        raise EventError(
            f"{path}: {dataset.RasterCount} band(s) of {', '.join(sorted(kinds))}; only three 8-bit bands (RGB) can be "
            "read; docs/data.md shows how to convert it"
        )
    image = Image(path, dataset)
    if any(dataset.GetRasterBand(b + 1).GetMaskFlags() != gdal.GMF_ALL_VALID for b in range(3)):
        _refuse_nodata(image)
    return image


def _refuse_nodata(image: Image) -> None:
    for window in tile(*image.shape, BLOCK):
        masks = [_read(image.path, image.dataset.GetRasterBand(b + 1).GetMaskBand(), *window) for b in range(3)]
        if not np.any(masks, axis=0).all():
            raise EventError(
                f"{image.path}: holds nodata pixels, which this version cannot leave out; crop the event to valid ones"
            )


def open_event(paths: Sequence[Path]) -> list[Image]:
    """Open the images of one event. Raises EventError, naming both files, where two do not share their grid."""
    images = [open_image(path) for path in paths]
    for other in images[1:]:
        _check_same_grid(images[0], other)
    return images


def _check_same_grid(first: Image, other: Image) -> None:
    if first.shape != other.shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (first.shape, other.shape))
        raise EventError(f"{first.path} and {other.path}: sizes differ, {sizes}; warp them to one grid (gdalwarp)")
    (crs, transform), (other_crs, other_transform) = first.georeference, other.georeference
    if crs is not None and other_crs is not None and not crs.IsSame(other_crs):
        raise EventError(
            f"{first.path} and {other.path}: CRSs differ, {crs.GetName()} and {other_crs.GetName()}; "
            "warp them to one grid (gdalwarp)"
        )
    if transform is None or other_transform is None:
        return
    inverse = gdal.InvGeoTransform(transform)
    if inverse is None:
        raise EventError(f"{first.path}: its transform {transform} maps the image to a line; set it right (gdal_edit)")
    height, width = first.shape
    for corner in ((0, 0), (width, 0), (0, height), (width, height)):
        there = gdal.ApplyGeoTransform(inverse, *gdal.ApplyGeoTransform(other_transform, *corner))
        apart = float(np.hypot(there[0] - corner[0], there[1] - corner[1]))
        if apart > GRID_TOLERANCE:
            raise EventError(
                f"{first.path} and {other.path}: their grids lie {apart:.1f} pixels apart; "
                "warp them to one grid (gdalwarp)"
            )


def read_window(image: Image, window: Window) -> np.ndarray:
    """A window of an image, (H, W, 3) uint8 RGB. Raises EventError where the file is damaged or cut off."""
    return np.ascontiguousarray(_read(image.path, image.dataset, *window).transpose(1, 2, 0))


class Layer(_GeoTiff):
    """An open GeoTIFF of one band: a map or a label. Not for several threads at once."""

    def read(self, window: Window) -> np.ndarray:
        """The pixels of a window, (h, w) of the file's type. Raises EventError where it is damaged or cut off."""
        return _read(self.path, self.dataset, *window)


def open_label(path: Path) -> Layer:
    """Open a label raster, of any integer type. Raises EventError for several bands or other types."""
    dataset = _open(path)
    kind = gdal_array.GDALTypeCodeToNumericTypeCode(dataset.GetRasterBand(1).DataType)
    if dataset.RasterCount != 1 or not np.issubdtype(kind, np.integer):
        raise EventError(
            f"{path}: {dataset.RasterCount} band(s) of {np.dtype(kind).name}; a label is one band of integers"
        )
    return Layer(path, dataset)


def open_map(path: Path) -> Layer:
    """Open a change or anomaly map, float32. Raises EventError for a file that is no such map."""
    dataset = _open(path)
    if dataset.RasterCount != 1 or dataset.GetRasterBand(1).DataType != gdal.GDT_Float32:
        raise EventError(f"{path}: no float32 map of one band; remove it and run its stage again")
    return Layer(path, dataset)


def read_parameters(path: Path) -> dict[str, Any] | None:
    """The parameters that a map was written with; None for a map of another program. Raises EventError."""
    text = _open(path).GetMetadataItem(PARAMETERS_TAG)
    try:
        return json.loads(text) if text else None
    except ValueError:
        raise EventError(f"{path}: its metadata item {PARAMETERS_TAG} is damaged; remove the file") from None


def is_current(path: Path, shape: tuple[int, int], parameters: dict[str, Any]) -> bool:
    """Whether a map is there, whole, of this size and made with these parameters; where it is not, says why.

    A map without parameters (the published program's) is taken as it is, with a warning.
    """
    if not path.exists():
        return False
    try:
        found, recorded = open_map(path), read_parameters(path)
        for _ in read_bands(found):
            pass  # a file that was cut off is found by reading it
    except EventError as error:
        LOG.warning("%s; made again", error)
        return False
    if found.shape != shape:
        LOG.warning("%s: has the size of other images; made again", path)
        return False
    if recorded is None:
        LOG.warning("%s: does not say how it was made; taken as it is", path)
        return True
    changed = sorted(key for key in recorded.keys() | parameters.keys() if recorded.get(key) != parameters.get(key))
    if changed:
        LOG.warning("%s: was made with another %s; made again", path, ", ".join(changed))
    return not changed


def write_raster(
    path: Path, source: Raster | np.ndarray, georeference: Georeference, parameters: dict[str, Any] | None = None
) -> None:
    """Write a GeoTIFF that appears whole or not at all.

    `source`: a raster, or an array, (H, W) or (H, W, 3), of a type GDAL knows; it is read by bands, twice.
    `parameters` are stored with it (see `read_parameters`). Raises EventError where it cannot be written, as on a full
    disk.
    """
    raster = MemoryRaster(source) if isinstance(source, np.ndarray) else source
    with _file(path) as part, _no_side_files():
        part.unlink(missing_ok=True)  # GDAL looks into a file that a killed run left, and may stumble
        try:
            _write_tiff(part, raster, georeference, parameters)
            _check_written(part, raster)
        except RuntimeError as error:
            _append_to(part)  # GDAL seldom gives the reason; the system does, as an OSError
            raise EventError(f"{path}: cannot be written ({' '.join(str(error).split())})") from None


@contextmanager
def _file(path: Path) -> Iterator[Path]:
    """`whole_file`, with an EventError instead of an OSError."""
    try:
        with whole_file(path) as part:
            yield part
    except OSError as error:
        raise EventError(f"{path}: cannot be written ({error.strerror})") from None


@contextmanager
def _no_side_files() -> Iterator[None]:
    """Keep GDAL from writing what a GeoTIFF cannot hold (a rare CRS) to an .aux.xml file beside the temporary one."""
    gdal.SetThreadLocalConfigOption("GDAL_PAM_ENABLED", "NO")
    try:
        yield
    finally:
        gdal.SetThreadLocalConfigOption("GDAL_PAM_ENABLED", None)


def _write_tiff(path: Path, raster: Raster, georeference: Georeference, parameters: dict[str, Any] | None) -> None:
    height, width = raster.shape
    pixel = raster.read(Window(0, 0, 1, 1))  # tells the type and the number of bands
    count = pixel.shape[2] if pixel.ndim == 3 else 1
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(pixel.dtype)
    options = ["TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER"]
    if count == 3:
        options.append("PHOTOMETRIC=RGB")
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), width, height, count, kind, options)
    try:
        if georeference.spatial_reference is not None:
            dataset.SetSpatialRef(georeference.spatial_reference)
        if georeference.transform is not None:
            dataset.SetGeoTransform(georeference.transform)
        if parameters is not None:
            dataset.SetMetadataItem(PARAMETERS_TAG, json.dumps(parameters, sort_keys=True))
        for window in bands(raster.shape):
            dataset.WriteArray(_bands_first(raster.read(window)), window.x, window.y)
    finally:
        # Closed by its destructor, a file that cannot be written ends as a message on stderr, not as an error.
        gdal.Dataset.__swig_destroy__(dataset)


def _bands_first(pixels: np.ndarray) -> np.ndarray:
    """GDAL's order: (bands, h, w) instead of (h, w, bands); (h, w) stays."""
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels


def _check_written(path: Path, raster: Raster) -> None:
    """Raises RuntimeError where a file does not hold what it was made from: not every failure of GDAL is an error."""
    dataset = gdal.Open(str(path))
    for window in bands(raster.shape):
        if not np.array_equal(dataset.ReadAsArray(*window), _bands_first(raster.read(window)), equal_nan=True):
            raise RuntimeError("it does not hold what was written")


def _append_to(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(1 << 20))


def write_preview(path: Path, binary: Raster) -> None:
    """Write a binary map (bool) as an 8-bit PNG of 0 and 255 that appears whole or not at all.

    Raises EventError where it cannot be written. No library at hand writes a PNG piece by piece and reports a full
    disk: GDAL's driver leaves out the end of the file without an error.
    """
    height, width = binary.shape
    compressor = zlib.compressobj()
    with _file(path) as part, open(part, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_png_chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)))  # 8 bits, grey
        for pixels in read_bands(binary):
            rows = np.pad(pixels.astype(np.uint8) * 255, ((0, 0), (1, 0)))  # before each row its filter, 0: none
            file.write(_png_chunk(b"IDAT", compressor.compress(rows.data)))
        file.write(_png_chunk(b"IDAT", compressor.flush()))
        file.write(_png_chunk(b"IEND", b""))


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture, (H, W) or (H, W, 3) uint8 RGB, as a PNG that appears whole or not at all."""
    _, encoded = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)
    with _file(path) as part:
        part.write_bytes(encoded.tobytes())
