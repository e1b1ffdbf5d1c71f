"""Reads images and labels of events: decides what is read, and how, and what is refused.

This version takes 8-bit RGB GeoTIFFs whose dates share one grid, and refuses everything else by name (docs/data.md).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from osgeo import gdal, gdal_array

from gdal_files import GeoTiff, Layer
from utils import EventError, Window, tile

BLOCK = 2048  # side of the windows that a whole raster is scanned by
GRID_TOLERANCE = 0.5  # pixels that the corners of two dates may lie apart


class Image(GeoTiff):
    """An open 8-bit RGB GeoTIFF."""


def open_image(path: Path) -> Image:
    """Open an 8-bit RGB GeoTIFF. Raises EventError for any other file, and for one that holds nodata pixels."""
    image = Image(path)
    dataset = image.dataset
    kinds = {gdal.GetDataTypeName(dataset.GetRasterBand(b + 1).DataType) for b in range(dataset.RasterCount)}
    if dataset.RasterCount != 3 or kinds != {"Byte"}:
        raise EventError(
            f"{path}: {dataset.RasterCount} band(s) of {', '.join(sorted(kinds))}; only three 8-bit bands (RGB) can be "
            "read; docs/data.md shows how to convert it"
        )
    if any(dataset.GetRasterBand(b + 1).GetMaskFlags() != gdal.GMF_ALL_VALID for b in range(3)):
        _refuse_nodata(image)
    return image


def _refuse_nodata(image: Image) -> None:
    for window in tile(*image.shape, BLOCK):
        masks = [image.read_array(image.dataset.GetRasterBand(b + 1).GetMaskBand(), *window) for b in range(3)]
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
    crs, transform = first.georeference[:2]
    other_crs, other_transform = other.georeference[:2]
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
    return np.ascontiguousarray(image.read_array(image.dataset, *window).transpose(1, 2, 0))


def open_label(path: Path) -> Layer:
    """Open a label raster, of any integer type. Raises EventError for several bands or other types."""
    layer = Layer(path)
    dataset = layer.dataset
    kind = gdal_array.GDALTypeCodeToNumericTypeCode(dataset.GetRasterBand(1).DataType)
    if dataset.RasterCount != 1 or not np.issubdtype(kind, np.integer):
        raise EventError(
            f"{path}: {dataset.RasterCount} band(s) of {np.dtype(kind).name}; a label is one band of integers"
        )
    return layer
