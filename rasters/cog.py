"""Writes rasters as Cloud Optimized GeoTIFFs that appear whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from osgeo import gdal, gdal_array

from rasters.gdal_output import close_dataset, written_by_gdal
from rasters.geotiff import IGNORE_AXIS_ORDER, Georeference
from rasters.raster import READERS, STRIP_ROWS, MemoryRaster, Raster, blocks, read_ahead
from utils import Window, warn_once


def write_raster(
    path: Path,
    source: Raster | np.ndarray,
    georeference: Georeference,
    tags: Mapping[str, str] | None = None,
    descriptions: Sequence[str] = (),
) -> None:
    """Write a Cloud Optimized GeoTIFF that appears whole or not at all.

    Parameters
    ----------
    path
        The file; its folder is created.
    source
        A raster, or an array, (H, W) or (H, W, bands), of a type that GDAL supports; read in parts, up to three times.
        NaN (in all bands), or the mask of a masked array, means no data: these pixels become 0, and 0 in a mask band.
    georeference
        Georeferencing of the raster.
    tags
        Metadata items; see `map_tags`.
    descriptions
        Descriptions of the first bands.

    Raises EventError if the file cannot be written, for example on a full disk.

    """
    raster = MemoryRaster(source) if isinstance(source, np.ndarray) else source
    with written_by_gdal(path) as part:
        plain = part.with_name(f"{part.name}.plain")
        _write_plain(plain, raster, georeference, tags or {}, descriptions)
        _write_cog(part, plain)
        _check_written(part, raster, georeference)


def _write_plain(
    path: Path, raster: Raster, georeference: Georeference, tags: Mapping[str, str], descriptions: Sequence[str]
) -> None:
    """Write the raster as a plain GeoTIFF, from which GDAL makes the Cloud Optimized one."""
    height, width = raster.shape
    pixel = raster.read(Window(0, 0, 1, 1))  # for the type and the number of bands
    count = pixel.shape[2] if pixel.ndim == 3 else 1
    parts = list(blocks(raster.shape, count))
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(pixel.dtype)
    # Only this program reads the file. Scores are constant over regions, so compressing them takes less time than
    # writing them as they are.
    options = ["TILED=YES", *fast_compression(), "BIGTIFF=IF_SAFER"]
    options += ["PHOTOMETRIC=RGB"] if count == 3 and kind == gdal.GDT_Byte else []
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), width, height, count, kind, options)
    with close_dataset(dataset):
        _set_georeference(dataset, georeference)
        for name, value in tags.items():
            dataset.SetMetadataItem(name, value)
        for number, description in enumerate(descriptions, 1):
            dataset.GetRasterBand(number).SetDescription(description)
        band = dataset.GetRasterBand(1)
        gaps = False

        def read(window: Window) -> tuple[np.ndarray, np.ndarray | None]:
            return _without_gaps(raster.read(window))

        for window, (values, valid) in read_ahead(read, parts, READERS):
            dataset.WriteArray(_bands_first(values), window.x, window.y)
            gaps |= valid is not None
        if gaps:
            dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
            for window, (_, valid) in read_ahead(read, parts, READERS):
                mask = np.full((window.height, window.width), 255, np.uint8) if valid is None else valid * np.uint8(255)
                band.GetMaskBand().WriteArray(mask, window.x, window.y)
        elif kind == gdal.GDT_Float32:
            dataset.FlushCache()  # raises on a full disk, on which GDAL 3.6 crashes in the next line
            # Before the nodata value is set: comparing every pixel with it would take several times as long.
            dataset.BuildOverviews("AVERAGE", _overview_factors(raster.shape))
        if kind == gdal.GDT_Float32:
            band.SetNoDataValue(float("nan"))  # a value that no pixel has, so that 0 counts as a score


def fast_compression() -> list[str]:
    """Return GDAL's options for compressing a GeoTIFF that only this program reads."""
    options = gdal.GetDriverByName("GTiff").GetMetadataItem("DMD_CREATIONOPTIONLIST")
    return ["COMPRESS=ZSTD", "ZSTD_LEVEL=1"] if ">ZSTD<" in options else ["COMPRESS=DEFLATE", "ZLEVEL=1"]


def _overview_factors(shape: tuple[int, int]) -> list[int]:
    """Return the factors of the overviews that GDAL's COG driver makes: until one fits into a tile."""
    halvings = max(int(np.ceil(np.log2(max(shape) / STRIP_ROWS))), 0)
    return [2**level for level in range(1, halvings + 1)]


def _set_georeference(dataset: gdal.Dataset, georeference: Georeference) -> None:
    if georeference.spatial_reference is not None:
        dataset.SetSpatialRef(georeference.spatial_reference)
    if georeference.transform is not None:
        dataset.SetGeoTransform(georeference.transform)
    elif georeference.gcps:
        dataset.SetGCPs(georeference.gcps, georeference.gcp_spatial_reference)
    if georeference.rpcs:
        dataset.SetMetadata(dict(georeference.rpcs), "RPC")
    # Not for control points: GDAL shifts them by half a pixel when it reads Point, so that they already belong to Area,
    # but does not shift them back when it writes. Not without a CRS: GDAL would invent one.
    if georeference.area_or_point is not None and georeference.spatial_reference is not None:
        dataset.SetMetadataItem("AREA_OR_POINT", georeference.area_or_point)


def _write_cog(path: Path, source: Path) -> None:
    dataset = gdal.Open(str(source))
    is_map = dataset.GetRasterBand(1).DataType == gdal.GDT_Float32
    # Overviews average scores and colours, but not the values of a label, which stand for objects.
    is_label = dataset.RasterCount == 1 and not is_map
    options = [
        f"BLOCKSIZE={STRIP_ROWS}",
        "BIGTIFF=IF_SAFER",
        f"OVERVIEW_RESAMPLING={'NEAREST' if is_label else 'AVERAGE'}",
        # Not ZSTD, which OpenCV and tifffile cannot read by themselves. For scores, which are constant over regions, a
        # predictor makes files twice as large.
        "COMPRESS=DEFLATE",
        *(["LEVEL=1"] if is_map else ["PREDICTOR=YES"]),
        f"NUM_THREADS={gdal.GetConfigOption('GDAL_NUM_THREADS') or 'ALL_CPUS'}",  # compressing is most of the work
    ]
    with close_dataset(gdal.GetDriverByName("COG").CreateCopy(str(path), dataset, options=options)):
        pass


def _without_gaps(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return pixels, (h, w) or (h, w, bands), with 0 where they are NaN or masked, and which hold data; None: all.

    The latter is (h, w) bool.
    """
    if isinstance(pixels, np.ma.MaskedArray):
        gaps = np.ma.getmaskarray(pixels)
        valid = ~(gaps if pixels.ndim == 2 else gaps[..., 0])
        return pixels.filled(0), None if valid.all() else valid
    if pixels.dtype.kind != "f" or not np.isnan(pixels.max()):  # the maximum is NaN if any value is
        return pixels, None
    gaps = np.isnan(pixels)
    return np.where(gaps, pixels.dtype.type(0), pixels), ~(gaps if pixels.ndim == 2 else gaps[..., 0])


def _bands_first(pixels: np.ndarray) -> np.ndarray:
    """Convert (h, w, bands) to GDAL's order, (bands, h, w); return (h, w) unchanged."""
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels


def _check_written(path: Path, raster: Raster, georeference: Georeference) -> None:
    """Raise RuntimeError if a file differs from its source, since GDAL does not report every failure."""

    def holds(window: Window) -> bool:
        values, valid = _without_gaps(raster.read(window))
        dataset = gdal.Open(str(path))  # handles are not thread-safe
        if not np.array_equal(dataset.ReadAsArray(*window), _bands_first(values)):
            return False
        band = dataset.GetRasterBand(1)
        if band.GetMaskFlags() != gdal.GMF_PER_DATASET:
            return valid is None
        mask = band.GetMaskBand().ReadAsArray(*window) != 0
        return bool(mask.all()) if valid is None else np.array_equal(mask, valid)

    dataset = gdal.Open(str(path))
    parts = blocks(raster.shape, dataset.RasterCount)
    if not all(same for _, same in read_ahead(holds, parts, READERS)):
        raise RuntimeError("verification after writing failed")
    for wanted, found in (
        (georeference.spatial_reference, dataset.GetSpatialRef()),
        (georeference.gcp_spatial_reference, dataset.GetGCPSpatialRef()),
    ):
        if wanted is not None and (found is None or not wanted.IsSame(found, IGNORE_AXIS_ORDER)):
            name = wanted.GetName()
            warn_once(f"{path.parent}: a GeoTIFF cannot hold the CRS {name!r}; set it anew on the maps (gdal_edit)")
