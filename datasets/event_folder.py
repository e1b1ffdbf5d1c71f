"""Writes one event's folder, which appears whole: images that need no change are linked, others converted."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rasters.cog import write_raster
from rasters.geotiff import Georeference, GeoTiff, RasterFile
from utils import EventError, Window

ANOMALY = 255  # value of a label's anomalous pixels


@dataclass(frozen=True)
class Stack:
    """A raster of bands of one or several files of one size. Implements rasters.raster.Raster."""

    files: Sequence[RasterFile]
    bands: Sequence[int]  # of each file, from 1

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.files[0].shape

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w, bands)."""
        return np.concatenate([file.read_bands(self.bands, window) for file in self.files], axis=2)


@dataclass(frozen=True)
class Labelled:
    """Pixels of a file as a label: ANOMALY where `is_anomaly` holds, else 0. Implements rasters.raster.Raster."""

    file: RasterFile
    is_anomaly: Callable[[np.ndarray], np.ndarray]  # of the first band's values

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.file.shape

    def read(self, window: Window) -> np.ndarray:
        """Read the pixels of a window, (h, w) uint8."""
        values = self.file.read_bands([1], window)[..., 0]
        return np.where(self.is_anomaly(values), np.uint8(ANOMALY), np.uint8(0))


@dataclass(frozen=True)
class NewEvent:
    """An event of a data set, before its files are read."""

    name: str  # of its folder, with the category
    historical: dict[str, Path | Sequence[Path]]  # by date, YYYYMMDD: an image, or the files of red, green and blue
    monitor: tuple[str, Path | Sequence[Path]]
    label: Callable[[], Labelled | np.ndarray]  # of the size of the monitor image; may raise EventError


EventReader = Callable[[], NewEvent]  # may raise EventError, for this event alone


def open_raster(path: Path) -> RasterFile:
    """Open a PNG or a GeoTIFF. Raises EventError if it is missing or damaged."""
    if not path.exists():
        raise EventError(f"{path}: missing")
    return RasterFile(path, "PNG") if path.suffix.lower() == ".png" else GeoTiff(path)


def write_event(event: NewEvent, target: Path) -> bool:
    """Write an event's folder into `target`; returns False if it exists already.

    Raises EventError if a file is missing or damaged, or if sizes differ.
    """
    folder = target / event.name
    if folder.exists():
        return False
    date, monitor = event.monitor
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=target) as scratch:
        part = Path(scratch) / event.name
        part.mkdir()
        shapes = {_write_image(part / f"normal_{day}.tif", image) for day, image in sorted(event.historical.items())}
        shapes.add(_write_image(part / f"anomaly_{date}.tif", monitor))
        label = event.label()
        shapes.add(label.shape)
        if len(shapes) > 1:
            sizes = " and ".join(f"{width} x {height}" for height, width in sorted(shapes))
            raise EventError(f"{event.name}: images and label of {sizes} pixels; needs one size")
        georeference = GeoTiff(part / f"anomaly_{date}.tif").georeference
        write_raster(part / f"anomaly_{date}_label.tif", label, georeference)
        part.rename(folder)
    return True


def _write_image(path: Path, source: Path | Sequence[Path]) -> tuple[int, int]:
    """Link a GeoTIFF, or convert a PNG, or stack the files of three bands; returns height and width."""
    if isinstance(source, Path):
        file = open_raster(source)
        if isinstance(file, GeoTiff):
            link(source, path)
        elif len(file.bands) < 3:
            raise EventError(f"{source}: {len(file.bands)} bands; needs red, green and blue")
        else:
            write_raster(path, Stack([file], [1, 2, 3]), Georeference())
        return file.shape
    files = [open_raster(band) for band in source]
    if len({file.shape for file in files}) > 1:
        raise EventError(f"{source[0].parent}: its bands have different sizes")
    write_raster(path, Stack(files, [1]), files[0].georeference if isinstance(files[0], GeoTiff) else Georeference())
    return files[0].shape


def link(source: Path, path: Path) -> None:
    """Link a file to a second path, so that it takes no space; on another file system, copy it."""
    try:
        os.link(source.resolve(), path)
    except OSError:
        shutil.copyfile(source, path)
