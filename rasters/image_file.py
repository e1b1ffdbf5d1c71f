"""Finds the red, green and blue bands of an image file, and which pixels hold data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from osgeo import gdal, gdal_array

import config
from rasters.geotiff import GeoTiff, gdal_errors_named
from rasters.stretch import Stretch, find_stretch
from utils import EventError, Window, warn_once

RGB = {gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand}
ALPHA_ROWS = 64  # rows of an alpha band that are read to see whether it is a mask
HELP = "docs/data.md shows how to convert it"


class Values(NamedTuple):
    """Pixel values of a file and their validity."""

    bands: np.ndarray  # (h, w, 3), red, green and blue, of the file's type; 8 bits for a palette
    valid: np.ndarray | None  # (h, w) bool; None where all pixels hold data


class Units(NamedTuple):
    """A linear map from the values of a file to those of another one, one factor and one summand per band."""

    gain: tuple[float, ...]
    bias: tuple[float, ...]

    @classmethod
    def between(cls, own: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> "Units":
        """Return the map between two files. `own`, `other`: scale and offset of each band."""
        pairs = list(zip(own, other, strict=True))
        return cls(
            tuple(scale / other_scale for (scale, _), (other_scale, _) in pairs),
            tuple((offset - other_offset) / other_scale for (_, offset), (other_scale, other_offset) in pairs),
        )

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Convert values, (h, w, 3); integers are rounded and clipped to the range of their type."""
        converted = values * np.array(self.gain) + np.array(self.bias)
        if values.dtype.kind != "f":
            limits = np.iinfo(values.dtype)
            converted = np.clip(np.rint(converted), limits.min, limits.max)
        return converted.astype(values.dtype)


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
        self.read_as: dict[str, Any] = {}  # where reading departs from the file's layout, for the maps' tags
        self._units: Units | None = None
        with gdal_errors_named(path):
            self._describe(chosen)

    def _describe(self, chosen: Sequence[int] | None) -> None:
        bands = self.bands
        if len(bands) > self.dataset.RasterCount:
            self.read_as["pages"] = len(bands)
        flagged = [
            number for number, band in enumerate(bands, 1) if band.GetColorInterpretation() == gdal.GCI_AlphaBand
        ]
        alphas = [number for number in flagged if self._masks(bands[number - 1], number)]
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
        mask = bands[0].GetMaskBand()
        if self._has_mask and (mask.YSize, mask.XSize) != self.shape:
            raise EventError(
                f"{self.path}: its mask has {mask.XSize} x {mask.YSize} pixels, the image {self.shape[1]} x "
                f"{self.shape[0]}; remove the mask ({self.path.name}.msk) or write it again"
            )
        chosen_bands = [bands[number - 1] for number in self._bands]
        self.tags = tuple((band.GetScale(), band.GetOffset()) for band in chosen_bands)
        self._colors = tuple(band.GetColorInterpretation() for band in chosen_bands)

    def _masks(self, band: gdal.Band, number: int) -> bool:
        """Return whether a band that is flagged as alpha is a mask: most of its values are 0 or the largest one."""
        height, width = self.shape
        rows = np.linspace(0, height - 1, min(height, ALPHA_ROWS)).astype(int).tolist()
        values = np.concatenate([band.ReadAsArray(0, row, width, 1) for row in rows])
        if np.mean((values == 0) | (values == values.max())) >= 0.5:
            return True
        self.read_as["near_infrared"] = number
        warn_once(
            f"{self.path.parent}: band {number} is flagged as alpha, but most of its values lie between 0 and the "
            "largest one: taken as near infrared, it masks nothing"
        )
        return False

    def order_colors_like(self, other: "ImageFile") -> None:
        """Take red, green and blue in the order of another file, where both files say which band is which."""
        if self._colors != other._colors and set(self._colors) == set(other._colors) == RGB:
            order = [self._colors.index(color) for color in other._colors]
            self._bands = tuple(self._bands[index] for index in order)
            self.tags = tuple(self.tags[index] for index in order)
            self._colors = other._colors
            self.read_as["bands"] = list(self._bands)
            warn_once(
                f"{self.path}: its colours are in another order than those of {other.path.name}: bands "
                f"{', '.join(map(str, self._bands))} are read"
            )

    def convert_units(self, units: "Units", like: "ImageFile") -> None:
        """Convert all values that are read from now on to the units of another file."""
        self._units = units
        self.read_as["units"] = [list(units.gain), list(units.bias)]
        warn_once(
            f"{self.path}: its scale and offset tags differ from those of {like.path.name}: its values are multiplied "
            f"by {units.gain[0]:g}, and {units.bias[0]:g} is added"
        )

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
        if self._units is not None:
            values = self._units.apply(values)
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


def match_files(files: Sequence[ImageFile], reference: ImageFile) -> None:
    """Let all files be read with the colour order and the units of the reference image, where their tags differ.

    A file without a scale is taken to have the scale of the first file with one, and without an offset, the offset 0.
    """
    for file in files:
        file.order_colors_like(reference)
    if len({file.tags for file in files}) == 1:
        return
    first_scale = next((scale for file in files for scale, _ in file.tags if scale), 1.0)
    for file in files:
        own, other = (
            [(scale or first_scale, offset or 0.0) for scale, offset in image.tags] for image in (file, reference)
        )
        units = Units.between(own, other)
        if units != Units((1.0,) * 3, (0.0,) * 3):
            file.convert_units(units, reference)


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
