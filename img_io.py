"""Reads and writes rasters: the only module that touches GDAL.

This version takes 8-bit RGB GeoTIFFs whose dates share one grid, and refuses everything else by name (docs/data.md).
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from osgeo import gdal, gdal_array, osr

from utils import LOG, EventError, Window, tile, whole_file

gdal.UseExceptions()

PARAMETERS_TAG = "ANOMALYCD_PARAMETERS"
BLOCK = 2048  # side of the windows that a whole raster is scanned by
GRID_TOLERANCE = 0.5  # pixels that the corners of two dates may lie apart


class Georeference(NamedTuple):
    """Where a raster lies; None where it does not say."""

    spatial_reference: osr.SpatialReference | None
    transform: tuple[float, ...] | None  # GDAL's six numbers


@dataclass(frozen=True)
class Image:
    """An open 8-bit RGB GeoTIFF."""

    path: Path
    dataset: gdal.Dataset

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.dataset.RasterYSize, self.dataset.RasterXSize

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


def read_label(path: Path) -> np.ndarray:
    """A label raster, (H, W) of any integer type. Raises EventError for several bands or other types."""
    dataset = _open(path)
    kind = gdal_array.GDALTypeCodeToNumericTypeCode(dataset.GetRasterBand(1).DataType)
    if dataset.RasterCount != 1 or not np.issubdtype(kind, np.integer):
        raise EventError(
            f"{path}: {dataset.RasterCount} band(s) of {np.dtype(kind).name}; a label is one band of integers"
        )
    return _read(path, dataset)


def read_map(path: Path) -> np.ndarray:
    """A change or anomaly map, (H, W) float32. Raises EventError for a file that is no such map."""
    dataset = _open(path)
    values = _read(path, dataset)
    if values.ndim != 2 or values.dtype != np.float32:
        raise EventError(f"{path}: no float32 map of one band; remove it and run its stage again")
    return values


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
        found, recorded = read_map(path), read_parameters(path)
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
    path: Path, values: np.ndarray, georeference: Georeference, parameters: dict[str, Any] | None = None
) -> None:
    """Write a GeoTIFF that appears whole or not at all.

    `values`: (H, W), or (H, W, 3), of a type GDAL knows. `parameters` are stored with it (see `read_parameters`).
    Raises EventError where it cannot be written, as on a full disk.
    """
    bands = np.atleast_3d(values)
    height, width, count = bands.shape
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(bands.dtype)
    options = ["TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER"]
    if count == 3:
        options.append("PHOTOMETRIC=RGB")
    # GDAL swallows what goes wrong when a file is closed, a full disk above all. So it writes to memory, and Python,
    # which reports every error, to the disk.
    with _memory_file() as memory:
        dataset = gdal.GetDriverByName("GTiff").Create(memory, width, height, count, kind, options)
        if georeference.spatial_reference is not None:
            dataset.SetSpatialRef(georeference.spatial_reference)
        if georeference.transform is not None:
            dataset.SetGeoTransform(georeference.transform)
        if parameters is not None:
            dataset.SetMetadataItem(PARAMETERS_TAG, json.dumps(parameters, sort_keys=True))
        for band in range(count):
            dataset.GetRasterBand(band + 1).WriteArray(bands[:, :, band])
        del dataset  # closes the file
        _write_bytes(path, _memory_bytes(memory))


@contextmanager
def _memory_file() -> Iterator[str]:
    name = f"/vsimem/{uuid.uuid4()}.tif"
    try:
        yield name
    finally:
        gdal.Unlink(name)


def _memory_bytes(name: str) -> bytes:
    file = gdal.VSIFOpenL(name, "rb")
    try:
        return bytes(gdal.VSIFReadL(1, gdal.VSIStatL(name).size, file))
    finally:
        gdal.VSIFCloseL(file)


def _write_bytes(path: Path, content: bytes) -> None:
    try:
        with whole_file(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise EventError(f"{path}: cannot be written ({error.strerror})") from None


def write_preview(path: Path, binary: np.ndarray) -> None:
    """Write a binary map, (H, W) bool, as a PNG of 0 and 255 that appears whole or not at all."""
    write_picture(path, binary.astype(np.uint8) * 255)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture, (H, W) or (H, W, 3) uint8 RGB, as a PNG that appears whole or not at all."""
    _, encoded = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)
    _write_bytes(path, encoded.tobytes())
