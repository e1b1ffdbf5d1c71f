"""Writes files with GDAL that appear whole or not at all; reports the system's reason when GDAL gives none."""

import glob
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from osgeo import gdal

from utils import LOG, EventError, atomic_file, one_line

# Keep GDAL from writing side files: masks, CRSs that a GeoTIFF cannot hold, and SQLite journals (an unfinished file is
# discarded anyway).
OPTIONS = {"GDAL_PAM_ENABLED": "NO", "GDAL_TIFF_INTERNAL_MASK": "YES", "OGR_SQLITE_JOURNAL": "OFF"}


# Files that GDAL and QGIS write beside an output, such as statistics. They do not fit the file that replaces it.
COMPANIONS = (".aux.xml", ".ovr", ".msk")


@contextmanager
def event_file(path: Path) -> Iterator[Path]:
    """Open an `atomic_file`; raise EventError instead of OSError. Yields the path of the temporary file.

    Companions of a file that is replaced are removed.
    """
    try:
        with atomic_file(path) as part:
            yield part
        remove_outputs(*(path.with_name(path.name + suffix) for suffix in COMPANIONS))
    except OSError as error:
        raise EventError(f"{path}: cannot be written ({error.strerror})") from None


def remove_outputs(*paths: Path) -> None:
    """Remove outputs that do not fit the new ones, if they exist, and say so."""
    for path in paths:
        if path.exists():
            path.unlink()
            LOG.info("%s: removed, it belonged to outputs that are replaced", path)


@contextmanager
def written_by_gdal(path: Path) -> Iterator[Path]:
    """Open an `event_file` for GDAL to write: its errors become EventErrors, and its side files are removed.

    Yields the path of the temporary file. All other files whose names begin with its name are removed.
    """
    with event_file(path) as part, gdal_options(OPTIONS, gdal.SetThreadLocalConfigOption):
        beside = f"{glob.escape(part.name)}*"
        for leftover in part.parent.glob(beside):
            leftover.unlink()  # left by a killed run: GDAL would read it
        try:
            yield part
        except RuntimeError as error:
            for file in sorted(part.parent.glob(beside)):
                _probe_write(file)  # GDAL seldom gives the reason; the system's OSError does
            raise EventError(f"{path}: cannot be written ({one_line(error)})") from None
        finally:
            for file in part.parent.glob(beside):
                if file != part:
                    file.unlink()


@contextmanager
def gdal_options(options: Mapping[str, str], set_option: Callable[[str, str | None], object]) -> Iterator[None]:
    """Set options of GDAL for a block. `set_option`: GDAL's function for this thread, or for all threads."""
    for name, value in options.items():
        set_option(name, value)
    try:
        yield
    finally:
        for name in options:
            set_option(name, None)


def _probe_write(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(1 << 20))


@contextmanager
def close_dataset(dataset: gdal.Dataset) -> Iterator[None]:
    """Close a dataset by its destructor, which raises on a full disk; otherwise GDAL only prints to stderr."""
    try:
        yield
    finally:
        gdal.Dataset.__swig_destroy__(dataset)
