"""Reads the images and the label of an event, all on one grid and as 8-bit RGB (docs/data.md)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from osgeo import gdal_array

import config
from rasters.affine import Affine
from rasters.alignment import estimate_shift
from rasters.geotiff import Georeference, GeoTiff, RasterFile
from rasters.grids import largest_offset, map_to_other_grid
from rasters.image_file import ImageFile, match_files, stretch_of_files
from rasters.stretch import Stretch
from rasters.warp import resample
from utils import Event, EventError, Window, warn_once

LEAST_SHIFT = 0.1  # pixels; smaller shifts are ignored
LARGEST_LABEL = 2.0**30  # larger values of float labels become this one, which fits into an integer


class ImageOptions(NamedTuple):
    """Options for the conversion to 8-bit RGB on one grid; see cli.flags.add_image_arguments."""

    stretch: str = config.STRETCH  # one of config.STRETCH_MODES; only for images of more than 8 bits
    bands: tuple[int, ...] | None = None  # numbers of the red, green and blue band, from 1; None: the first three
    align_shift: float = 0.0  # pixels; shifts up to this are undone; 0: no estimate


class Pixels(NamedTuple):
    """A window of an image."""

    rgb: np.ndarray  # (H, W, 3) uint8; 0 where there is no data
    valid: np.ndarray | None  # (H, W) bool, False where there is no data; None: data everywhere


@dataclass(frozen=True)
class Image:
    """A date of an event, on the event's grid."""

    file: ImageFile
    shape: tuple[int, int]  # of the grid, height and width
    stretch: Stretch | None  # None: 8-bit values are kept
    to_file: Affine | None = None  # from pixels of the grid to pixels of the file; None: they are the same

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.file.path

    @property
    def may_lack_data(self) -> bool:
        """Whether any pixel can be without data."""
        return self.to_file is not None or self.file.may_lack_data


@dataclass(frozen=True)
class EventImages:
    """All images of an event, on the grid of its reference image."""

    historical: tuple[Image, ...]  # the reference image last
    monitor: Image
    parameters: dict[str, Any]  # the options and shifts that were applied, for the maps' tags

    @property
    def reference(self) -> Image:
        """The latest historical image."""
        return self.historical[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the grid in pixels."""
        return self.reference.shape

    @property
    def georeference(self) -> Georeference:
        """Georeferencing of the grid."""
        return self.reference.file.georeference


def event_shape(event: Event) -> tuple[int, int]:
    """Return height and width of an event's grid. Raises EventError if the reference image cannot be opened."""
    return GeoTiff(event.reference).shape


def open_event(event: Event, options: ImageOptions = ImageOptions()) -> EventImages:  # noqa: B008
    """Open all images of an event.

    Raises EventError, naming the files, if one cannot be read or if pixel types, bands or places do not match.
    """
    if event.has_roles_by_order:
        _check_label_by_order(event)
    files = [ImageFile(path, options.bands) for path in (*event.historical, event.monitor)]
    reference = files[-2]
    for file in files:
        if (file.dtype, file.layout) != (reference.dtype, reference.layout):
            described = " and ".join(f"{image.layout} of {image.dtype.name}" for image in (reference, file))
            raise EventError(
                f"{reference.path} and {file.path}: differ ({described}); "
                "convert all dates to the same bands and data type"
            )
    match_files(files, reference)
    stretch = stretch_of_files(files, options.stretch)
    images = [Image(file, reference.shape, stretch, map_to_other_grid(reference, file)) for file in files]
    for image in images:
        _warn_if_resampled(image, reference)
    shifts: dict[str, list[float]] = {}
    if options.align_shift:
        images = [_aligned(image, images[-2], options.align_shift, shifts) for image in images]
    parameters: dict[str, Any] = {
        "bands": options.bands and list(options.bands),
        "stretch": stretch and [options.stretch, *stretch],
        "align_shift": options.align_shift,
        "shifts": shifts,
    }
    if read_as := {file.path.name: file.read_as for file in files if file.read_as}:
        parameters["read_as"] = read_as  # only then, so that older maps stay current
    return EventImages(tuple(images[:-1]), images[-1], parameters)


def _warn_if_resampled(image: Image, reference: ImageFile) -> None:
    if image.to_file is not None:
        x, y = image.to_file(np.zeros(1), np.zeros(1))
        steps = " x ".join(f"{step:.4g}" for step in image.to_file.steps)
        warn_once(
            f"{image.path}: resampled to the grid of {reference.path.name}: its first pixel is at ({x[0]:.1f}, "
            f"{y[0]:.1f}) in the file; scale {steps}; largest corner offset "
            f"{largest_offset(image.shape, image.to_file):.1f} pixels"
        )


def _aligned(image: Image, reference: Image, limit: float, shifts: dict[str, list[float]]) -> Image:
    """Undo an image's shift against the reference, if at most `limit` pixels, and record the shift in `shifts`."""
    if image is reference:
        return image
    shift = estimate_shift(_window_pairs(reference, image))
    if shift is None:
        warn_once(f"{image.path}: no shift against {reference.path.name} could be estimated; not shifted")
        return image
    size, described = np.hypot(*shift), f"({shift[0]:.2f}, {shift[1]:.2f}) pixels against {reference.path.name}"
    if size > limit:
        warn_once(f"{image.path}: seems shifted by {described}, beyond --align-shift {limit:g}; not corrected")
    elif size >= LEAST_SHIFT:
        warn_once(f"{image.path}: shifted by {described}; the shift is corrected")
        shifts[image.path.name] = list(shift)
        return replace(image, to_file=_shifted(image.to_file, shift))
    return image


def _shifted(to_file: Affine | None, shift: tuple[float, float]) -> Affine:
    moved = Affine(shift[0], 1.0, 0.0, shift[1], 0.0, 1.0)
    return moved if to_file is None else to_file.after(moved)


def _window_pairs(first: Image, second: Image) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield evenly spaced windows of two images, those in which more than half of the pixels of both hold data."""
    height, width = first.shape
    side = min(config.ALIGN_WINDOW, height // 2, width // 2)  # at most half: identical windows always agree
    for y in np.linspace(0, height - side, config.ALIGN_WINDOWS).astype(int).tolist():
        for x in np.linspace(0, width - side, config.ALIGN_WINDOWS).astype(int).tolist():
            pair = [read_window(image, Window(x, y, side, side)) for image in (first, second)]
            if all(pixels.valid is None or pixels.valid.mean() > 0.5 for pixels in pair):
                yield pair[0].rgb, pair[1].rgb


def read_window(image: Image, window: Window) -> Pixels:
    """Read a window of an image. Raises EventError if the file is damaged or truncated."""
    if image.to_file is None:
        values, valid = image.file.read(window)
    else:
        values = resample(image.file.read_with_gaps, image.file.shape, image.to_file, window)
        has_data = ~np.isnan(values[..., 0])
        valid = None if has_data.all() else has_data
    rgb = _to_bytes(values) if image.stretch is None else image.stretch.to_bytes(values)
    if valid is not None:
        rgb[~valid] = 0
    return Pixels(rgb, valid)


def valid_in_all(windows: Iterable[Pixels]) -> np.ndarray | None:
    """Return where all images of a window hold data, (H, W) bool; None: everywhere."""
    partly = [pixels.valid for pixels in windows if pixels.valid is not None]
    return np.logical_and.reduce(partly) if partly else None


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Round resampled values to uint8 (NaN: 0); return uint8 values unchanged."""
    return values if values.dtype == np.uint8 else np.rint(np.nan_to_num(values)).astype(np.uint8)


class Label(RasterFile):
    """An open label on the grid of its event; 0 outside the monitor image."""

    def __init__(self, event_label: Path, grid: GeoTiff, to_label: Affine | None) -> None:
        """Open the file. `to_label`: from pixels of the grid to pixels of the label; None: they are the same."""
        super().__init__(event_label, "PNG" if _is_png(event_label) else "GTiff")
        self._own_shape, self._to_label = self.shape, to_label
        self.shape = grid.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w) integer.

        Raises EventError if the file is damaged or truncated, or if a float value is not whole.
        """
        if self._to_label is None:
            return self._read_whole_values(window)
        height, width = self._own_shape
        rows, columns = np.mgrid[window.y : window.y + window.height, window.x : window.x + window.width] + 0.5
        x, y = (np.floor(pixels).astype(int) for pixels in self._to_label(columns, rows))
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if not inside.any():
            return np.zeros(inside.shape, int)
        left, top = int(x[inside].min()), int(y[inside].min())
        part = Window(left, top, int(x[inside].max()) + 1 - left, int(y[inside].max()) + 1 - top)
        values = np.zeros(inside.shape, int)
        values[inside] = self._read_whole_values(part)[y[inside] - top, x[inside] - left]
        return values

    def _read_whole_values(self, window: Window) -> np.ndarray:
        """Read a window of the file, (h, w) integer."""
        values = self.read_bands([1], window)[..., 0]
        if np.issubdtype(values.dtype, np.integer):
            return values
        broken = values[~np.isfinite(values) | (values != np.rint(values))]
        if broken.size:
            raise EventError(
                f"{self.path}: the value {broken[0]!s} is not whole; "
                "write the label in whole numbers, above 1 where there is an anomaly"
            )
        return np.clip(values, -LARGEST_LABEL, LARGEST_LABEL).astype(np.int32)


def open_label(event: Event, shift: tuple[float, float] | None = None) -> Label:
    """Open the label of an event that has one.

    `shift`: (x, y) in pixels, the shift of the monitor image that `--align-shift` undid; None: none. Raises EventError
    if the file is not one band of integers or floats on the grid of the monitor image.
    """
    assert event.label is not None
    reference, monitor = GeoTiff(event.reference), GeoTiff(event.monitor)
    _check_label(event.label, monitor)
    to_monitor = map_to_other_grid(reference, monitor)
    return Label(event.label, reference, _shifted(to_monitor, shift) if shift else to_monitor)


def _check_label_by_order(event: Event) -> None:
    """Raise EventError if the second image of a folder without roles has several bands, so that it is no label."""
    assert event.label is not None
    bands = len(GeoTiff(event.label).bands)
    if bands != 1:
        raise EventError(
            f"{event.label}: taken as the label, since it is the second of the images without roles in their names, "
            f"but it has {bands} bands; name the images anomaly_DATE.tif and normal_DATE.tif"
        )


def _check_label(path: Path, monitor: GeoTiff) -> None:
    """Raise EventError if a file cannot be the label of a monitor image. A PNG's side files do not count."""
    label = RasterFile(path, "PNG") if _is_png(path) else GeoTiff(path)
    bands = len(label.bands)
    kind = gdal_array.GDALTypeCodeToNumericTypeCode(label.dataset.GetRasterBand(1).DataType)
    if bands != 1 or np.dtype(kind).kind not in "iuf":
        raise EventError(
            f"{path}: {bands} band(s) of {np.dtype(kind).name}; a label is one band of whole numbers; "
            "convert it (gdal_translate -b 1 -ot Byte FILE out.tif)"
        )
    if isinstance(label, GeoTiff):
        if map_to_other_grid(monitor, label) is not None:
            raise EventError(
                f"{path} and {monitor.path}: are on different grids; the label must be on the monitor image's grid"
            )
    elif label.shape != monitor.shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (label.shape, monitor.shape))
        raise EventError(f"{path} and {monitor.path}: sizes differ ({sizes}); a PNG label has the monitor image's size")


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"
