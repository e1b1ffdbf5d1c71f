"""Opens GeoTIFFs, and nothing else whatever a file claims to be, with one GDAL handle a thread."""

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
from osgeo import gdal, osr

from utils import EventError, Window

gdal.UseExceptions()
# GDAL keeps decoded blocks in up to 5 % of the machine's memory: what a run takes would depend on the machine, and grow
# with the raster. Maps are read in order, no block twice. An image in strips is decoded anew for each column of
# windows, which takes seconds where SAM takes minutes.
gdal.SetCacheMax(64 << 20)

# What a file itself says of its place goes before what lies beside it.
OPEN_OPTIONS = ["GEOREF_SOURCES=INTERNAL,PAM,WORLDFILE,TABFILE"]


class Georeference(NamedTuple):
    """Where a raster lies; None or empty where it does not say."""

    spatial_reference: osr.SpatialReference | None = None
    transform: tuple[float, ...] | None = None  # GDAL's six numbers
    gcps: tuple[gdal.GCP, ...] = ()  # ground control points
    gcp_spatial_reference: osr.SpatialReference | None = None
    rpcs: tuple[tuple[str, str], ...] = ()  # rational polynomial coefficients, GDAL's names and values
    area_or_point: str | None = None


class GeoTiff:
    """A GeoTIFF, open in every thread that reads it."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises EventError where it is no GeoTIFF."""
        self.path = path
        self._handles = threading.local()
        dataset = self.dataset
        self.shape = (dataset.RasterYSize, dataset.RasterXSize)  # height and width in pixels

    @property
    def dataset(self) -> gdal.Dataset:
        """The handle of this thread: GDAL's are not for several at once."""
        if not hasattr(self._handles, "dataset"):
            self._handles.dataset = _open(self.path)
        return self._handles.dataset

    @property
    def georeference(self) -> Georeference:
        """Everything that the file says about its place."""
        dataset = self.dataset
        rpcs = dataset.GetMetadata_Dict("RPC") or {}
        return Georeference(
            dataset.GetSpatialRef(),
            dataset.GetGeoTransform(can_return_null=True),
            tuple(dataset.GetGCPs()),
            dataset.GetGCPSpatialRef(),
            tuple(sorted(rpcs.items())),
            dataset.GetMetadataItem("AREA_OR_POINT"),
        )

    def read_array(self, source: gdal.Dataset | gdal.Band, *area: int) -> np.ndarray:
        """The pixels of this file's dataset or one of its bands. Raises EventError where it is damaged or cut off."""
        try:
            return source.ReadAsArray(*area)
        except RuntimeError as error:
            raise EventError(f"{self.path}: cannot be read, damaged or cut off ({error})") from None


class Layer(GeoTiff):
    """A GeoTIFF of one band: a map or a label."""

    def read(self, window: Window) -> np.ndarray:
        """The pixels of a window, (h, w) of the file's type. Raises EventError where it is damaged or cut off."""
        return self.read_array(self.dataset, *window)


def _open(path: Path) -> gdal.Dataset:
    try:
        return gdal.OpenEx(
            str(path.absolute()),
            gdal.OF_RASTER | gdal.OF_READONLY,
            allowed_drivers=["GTiff"],
            open_options=OPEN_OPTIONS,
        )
    except RuntimeError as error:
        raise EventError(f"{path}: cannot be opened as a GeoTIFF ({error})") from None
