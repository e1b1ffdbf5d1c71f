"""SpaceNet 7: monthly mosaics of growing places, with all buildings of every month; A. Van Etten et al., CVPR 2021."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from osgeo import gdal

from datasets.event_folder import ANOMALY, EventReader, NewEvent, open_raster
from rasters.geotiff import GeoTiff
from utils import EventError, UsageError

MONTHS_APART = 12  # least, from the reference to the monitor image: the same season, and enough new buildings
MONTH = re.compile(r"global_monthly_(\d{4})_(\d{2})_mosaic_")


def spacenet7(source: Path) -> Iterator[EventReader]:
    """Return the places of `train`, or of the source itself.

    The last month is the monitor image. All months at least a year earlier are historical images, and the latest of
    them is the reference image. The label marks the buildings of the last month that the reference image's lacks.
    """
    roots = [root for root in (source, source / "train") if any(root.glob("*/labels_match"))]
    if not roots:
        raise UsageError(f"{source}: no place with images_masked (or images) and labels_match")
    for area in sorted(path.parent for path in roots[0].glob("*/labels_match")):
        yield partial(_stack, area)


def _stack(area: Path) -> NewEvent:
    folder = area / "images_masked" if (area / "images_masked").is_dir() else area / "images"
    months = {
        f"{found[1]}{found[2]}": path for path in sorted(folder.glob("*.tif")) if (found := MONTH.match(path.name))
    }
    if not months:
        raise EventError(f"{folder}: no global_monthly_YYYY_MM_mosaic_*.tif")
    last = max(months)
    historical = {month: path for month, path in months.items() if _count(last) - _count(month) >= MONTHS_APART}
    if not historical:
        raise EventError(f"{folder}: no image at least {MONTHS_APART} months before the last one")
    return NewEvent(
        f"6_SN7_{area.name}",
        {f"{month}01": path for month, path in historical.items()},
        (f"{last}01", months[last]),
        partial(_label, area, historical[max(historical)], months[last]),
    )


def _count(month: str) -> int:
    return 12 * int(month[:4]) + int(month[4:])


def _label(area: Path, reference: Path, monitor: Path) -> np.ndarray:
    """Rasterize the buildings of the last month that the reference image's month does not have, (H, W) uint8."""
    before, after = (area / "labels_match" / f"{image.stem}_Buildings.geojson" for image in (reference, monitor))
    old, new = _open(before), _open(after)  # kept: a layer does not outlive its dataset
    known = {building.GetField("Id") for building in old.GetLayer()}
    image = open_raster(monitor)
    assert isinstance(image, GeoTiff)
    georeference = image.georeference
    height, width = image.shape
    raster = gdal.GetDriverByName("MEM").Create("", width, height)
    raster.SetGeoTransform(georeference.transform)
    buildings = gdal.VectorTranslate("", new, format="Memory", dstSRS=georeference.spatial_reference)
    layer = buildings.GetLayer()
    for building in layer:
        if building.GetField("Id") in known:
            layer.DeleteFeature(building.GetFID())
    gdal.RasterizeLayer(raster, [1], layer, burn_values=[ANOMALY])
    return raster.ReadAsArray()


def _open(path: Path) -> gdal.Dataset:
    """Open the buildings of a month. Raises EventError if the file is missing, damaged, or has no field Id."""
    try:
        dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR, allowed_drivers=["GeoJSON"])
        if dataset is None or dataset.GetLayer().GetLayerDefn().GetFieldIndex("Id") < 0:
            raise RuntimeError
    except RuntimeError:
        raise EventError(f"{path}: missing, or no GeoJSON of buildings with the field Id") from None
    return dataset
