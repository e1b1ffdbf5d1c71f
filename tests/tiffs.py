"""GeoTIFFs and PNGs as written by other programs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, gdal_array, osr

from rasters.geotiff import Georeference
from utils import EventError

NOWHERE = Georeference()
TRANSFORM = (500000.0, 0.5, 0.0, 4200000.0, 0.0, -0.5)


def crs(code: int) -> osr.SpatialReference:
    reference = osr.SpatialReference()
    reference.ImportFromEPSG(code)
    return reference


def write_tiff(
    path: Path,
    values: np.ndarray,
    *options: str,
    nodata: float | None = None,
    change: Callable[[gdal.Dataset], object] | None = None,
) -> Path:
    """Write a GeoTIFF with plain GDAL; `change` is called with the dataset before it is closed."""
    bands = np.atleast_3d(values)
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(values.dtype)
    height, width, count = bands.shape
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), width, height, count, kind, list(options))
    for band in range(count):
        dataset.GetRasterBand(band + 1).WriteArray(bands[:, :, band])
        if nodata is not None:
            dataset.GetRasterBand(band + 1).SetNoDataValue(nodata)
    if change is not None:
        change(dataset)
    return path


def write_png(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    """Write a PNG, without side files. `palette`: the values are indices of colours in reverse order."""
    bands = np.atleast_3d(values)
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(values.dtype)
    height, width, count = bands.shape
    source = gdal.GetDriverByName("MEM").Create("", width, height, count, kind)
    for band in range(count):
        source.GetRasterBand(band + 1).WriteArray(bands[:, :, band])
    if palette:
        colors = gdal.ColorTable()
        for index in range(256):
            colors.SetColorEntry(index, (255 - index, 255 - index, 0))
        source.GetRasterBand(1).SetColorTable(colors)
    gdal.GetDriverByName("PNG").CreateCopy(str(path), source)
    return path


def refusal(path: Path, read: Callable[[Path], object]) -> str:
    """The error message for a file: one line that names it."""
    with pytest.raises(EventError) as refused:
        read(path)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message
