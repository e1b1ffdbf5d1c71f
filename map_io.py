"""Writes maps as GeoTIFFs that appear whole or not at all, reads them back, and tells whether they are current."""

import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from osgeo import gdal, gdal_array

from gdal_files import Georeference, GeoTiff, Layer
from raster_store import MemoryRaster, Raster, bands, read_bands
from utils import LOG, EventError, Window, differing_keys, whole_file

PARAMETERS_TAG = "ANOMALYCD_PARAMETERS"


def open_map(path: Path) -> Layer:
    """Open a change or anomaly map, float32. Raises EventError for a file that is no such map."""
    layer = Layer(path)
    if layer.dataset.RasterCount != 1 or layer.dataset.GetRasterBand(1).DataType != gdal.GDT_Float32:
        raise EventError(f"{path}: no float32 map of one band; remove it and run its stage again")
    return layer


def read_parameters(path: Path) -> dict[str, Any] | None:
    """The parameters that a map was written with; None for a map of another program. Raises EventError."""
    text = GeoTiff(path).dataset.GetMetadataItem(PARAMETERS_TAG)
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
    changed = differing_keys(recorded, parameters)
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
