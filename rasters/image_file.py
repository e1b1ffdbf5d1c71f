"""Finds the red, green and blue bands of an image file, and which pixels hold data."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from osgeo import gdal, gdal_array

import config
from rasters.geotiff import GeoTiff, gdal_errors_named
from rasters.stretch import Stretch, find_stretch
from utils import EventError, Window

HELP = "docs/data.md shows how to convert it"


class Values(NamedTuple):
    """Pixel values of a file and their validity."""

    bands: np.ndarray  # (h, w, 3), red, green and blue, of the file's type; 8 bits for a palette
    valid: np.ndarray | None  # (h, w) bool; None where all pixels hold data


class ImageFile(GeoTiff):
    """An open GeoTIFF with an image of one date."""

    def __init__(self, path: Path, chosen: Sequence[int] | None = None) -> None:
        """Open the file. `chosen`: numbers of the bands for red, green and blue, from 1.

        Raises EventError for a file that cannot be read as an image.
        """
        super().__init__(path)
        if min(self.shape) < config.MIN_IMAGE_SIDE:
            raise EventError(
                f"{path}: {self.shape[1]} x {self.shape[0]} pixels; at least {config.MIN_IMAGE_SIDE} per side needed"
            )
        with gdal_errors_named(path):
            self._describe(chosen)

    def _describe(self, chosen: Sequence[int] | None) -> None:
        bands = [self.dataset.GetRasterBand(number + 1) for number in range(self.dataset.RasterCount)]
        alphas = [number for number, band in enumerate(bands, 1) if band.GetColorInterpretation() == gdal.GCI_AlphaBand]
        self._bands = _color_bands(self.path, len(bands), alphas, chosen)
        self._palette = _palette(bands[0]) if len(set(self._bands)) == 1 and not chosen else None
        self.dtype = np.dtype(np.uint8) if self._palette is not None else _pixel_type(self.path, bands)
        # Must be the same for all dates of an event, unless the bands were chosen.
        self.layout = "palette" if self._palette is not None else f"{3 if chosen else len(bands) - len(alphas)} band(s)"
        self._alpha = [number for number in alphas if number not in self._bands]
        nodata = [bands[number - 1].GetNoDataValue() for number in self._bands]
        self._nodata = None if None in nodata else nodata
        flags = bands[0].GetMaskFlags()
        self._has_mask = bool(flags & gdal.GMF_PER_DATASET and not flags & gdal.GMF_ALPHA)

    @property
    def may_lack_data(self) -> bool:
        """Whether a pixel can be without data."""
        return bool(self._has_mask or self._alpha or self._nodata is not None or self.dtype.kind == "f")

    def read(self, window: Window) -> Values:
        """Read the pixels of a window."""
        numbers = sorted({*self._bands, *self._alpha})
        read = self.read_bands(numbers, window)
        values = read if tuple(numbers) == self._bands else read[..., [numbers.index(band) for band in self._bands]]
        invalid = []
        if self._nodata is not None:
            invalid.append(_equal(values, self._nodata).all(axis=2))
        if values.dtype.kind == "f":
            invalid.append(~np.isfinite(values).all(axis=2))
        invalid += [read[..., numbers.index(alpha)] == 0 for alpha in self._alpha]
        if self._has_mask:
            invalid.append(self.read_mask(window) == 0)
        if self._palette is not None:
            values = self._palette[values[..., 0]]
        gaps = np.logical_or.reduce(invalid) if invalid else np.zeros(0, bool)
        return Values(np.ascontiguousarray(values), ~gaps if gaps.any() else None)

    def read_with_gaps(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w, 3) float32, NaN where there is no data."""
        values, valid = self.read(window)
        values = values.astype(np.float32)
        if valid is not None:
            values[~valid] = np.nan
        return values

    def sample(self, side: int) -> np.ndarray:
        """Return the valid pixels, (n, 3), of at most `side` evenly spaced rows and columns.

        Reads single rows, since GDAL's decimated reading would use an overview, which may be outdated.
        """
        height, width = self.shape
        columns = np.linspace(0, width - 1, min(width, side)).astype(int)
        rows = []
        for y in np.linspace(0, height - 1, min(height, side)).astype(int).tolist():
            values, valid = self.read(Window(0, y, width, 1))
            picked = values[0, columns]
            rows.append(picked if valid is None else picked[valid[0, columns]])
        return np.concatenate(rows)


def stretch_of_files(files: Sequence[ImageFile], mode: str) -> Stretch | None:
    """Return the stretch of an event's images; None for 8-bit images, whose values are kept.

    `mode`: see find_stretch.
    """
    if files[0].dtype == np.uint8:
        return None
    return find_stretch([file.sample(config.STRETCH_SAMPLE_SIDE) for file in files], mode)


def _equal(values: np.ndarray, nodata: Sequence[float]) -> np.ndarray:
    if values.dtype.kind == "f":  # the file stores the value as rounded text
        return np.isclose(values, nodata, rtol=1e-5, atol=0)
    return values == np.array(nodata)


def _color_bands(path: Path, count: int, alphas: Sequence[int], chosen: Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of the bands for red, green and blue, from 1."""
    if chosen:
        if max(chosen) > count:
            raise EventError(
                f"{path}: {count} band(s); --bands {','.join(map(str, chosen))} names a band that does not exist"
            )

        return tuple(chosen)
    colors = [number for number in range(1, count + 1) if number not in alphas]
    if len(colors) == 1:
        return (colors[0],) * 3
    if len(colors) in (3, 4):
        return tuple(colors[:3])
    raise EventError(f"{path}: {count} bands; name those for red, green and blue, as in --bands 3,2,1")


def _pixel_type(path: Path, bands: Sequence[gdal.Band]) -> np.dtype:
    kind = gdal_array.GDALTypeCodeToNumericTypeCode(bands[0].DataType)
    signed = bands[0].GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE") == "SIGNEDBYTE"  # before GDAL 3.7
    if kind is None or np.dtype(kind).kind == "c" or signed:
        name = "signed 8-bit" if signed else gdal.GetDataTypeName(bands[0].DataType)
        raise EventError(f"{path}: {name} pixels; only integers and floating-point numbers can be read; {HELP}")
    return np.dtype(kind)


def _palette(band: gdal.Band) -> np.ndarray | None:
    """Return the colours of a palette, (256 or 65536, 3) uint8; None without one. In a TIFF all are opaque."""
    table = band.GetColorTable()
    if table is None:
        return None
    colors = np.zeros((256 if band.DataType == gdal.GDT_Byte else 65536, 3), np.uint8)
    entries = [table.GetColorEntry(index)[:3] for index in range(table.GetCount())]
    colors[: len(entries)] = entries
    return colors
