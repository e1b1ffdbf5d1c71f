"""Fetches the images of a plan, and writes them as an event folder that appears whole or not at all."""

import json
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from osgeo import gdal, gdal_array
from tqdm import tqdm

import config
from catalogs.mosaic import Mosaic
from catalogs.plan import MONITOR, Decision, EventPlan
from catalogs.query import Query
from catalogs.scenes import Scene
from cli.event_lock import event_lock
from cli.progress import progress_bar
from cli.provenance import program_tags
from rasters.cog import fast_compression, write_raster
from rasters.gdal_output import close_dataset, written_by_gdal
from rasters.geotiff import Georeference, GeoTiff
from rasters.image_file import ImageFile, stretch_of_files
from rasters.place import Grid
from rasters.stretch import Stretch
from utils import LOG, EventBusyError, EventError, Window, atomic_write, hide_secrets, tile

WINDOW = 1024  # pixels; a window is read, and repeated if the connection breaks
FETCHERS = 4  # images that are fetched at once
FETCHED_TAG = "ANOMALYCD_FETCHED"  # of a fetched image: what it was made from


def fetch_event(plan: EventPlan, query: Query, stretch: str, data_root: Path, name: str) -> Path:
    """Fetch what is missing of the images of a plan, and write the event; returns its folder.

    Raises EventError or NetworkError if an image cannot be fetched; those that were fetched are kept for the next run.
    """
    work = _work_folder(data_root, name)
    with event_lock(work):
        _fetch_all(plan, query, work)
        folder = work / "event"
        shutil.rmtree(folder, ignore_errors=True)
        files = [ImageFile(_fetched_path(decision, work)) for decision in plan.chosen]
        scaling = stretch_of_files(files, stretch)
        _write_images(plan, query, files, scaling, folder, name)
        record = event_record(plan, query, name) | {"stretch": scaling and [stretch, *scaling]}
        content = json.dumps(record, indent=2, ensure_ascii=False)
        atomic_write(folder / config.EVENT_RECORD_NAME, f"{content}\n".encode())
        folder.rename(data_root / name)
    remove_fetched(data_root, name)
    return data_root / name


def _work_folder(data_root: Path, name: str) -> Path:
    return data_root / f".{name}.get_event"  # hidden: no event of the data root


def remove_fetched(data_root: Path, name: str) -> None:
    """Remove the fetched images of an event that is complete, as far as this is possible."""
    work = _work_folder(data_root, name)
    if work.exists():
        with suppress(EventBusyError, OSError), event_lock(work):
            for image in work.glob("*.tif"):
                image.unlink()


# --- Fetching --------------------------------------------------------------------------------------------------------
def _fetch_all(plan: EventPlan, query: Query, work: Path) -> None:
    height, width = plan.grid.shape
    windows = tile(height, width, WINDOW)
    missing = [decision for decision in plan.chosen if not _is_fetched(decision, plan, query, work)]
    if len(missing) < len(plan.chosen):
        LOG.info("%d of %d images were fetched before", len(plan.chosen) - len(missing), len(plan.chosen))
    fetchers, stopped = ThreadPoolExecutor(FETCHERS, "fetch"), threading.Event()
    with progress_bar("fetching", "window", len(windows) * len(missing)) as bar:

        def next_windows() -> Iterator[Window]:
            for window in windows:
                if stopped.is_set():
                    raise EventError("stopped")
                yield window
                bar.update()

        def fetch(decision: Decision, grid: Grid) -> None:
            _fetch(decision, query, grid, next_windows(), _fetched_path(decision, work))

        try:
            futures = [fetchers.submit(fetch, decision, _own_grid(plan.grid)) for decision in missing]
            for future in as_completed(futures):  # not in order: the first error ends the run
                future.result()
        finally:
            stopped.set()  # after an error or Ctrl-C: the other images end with their present window
            fetchers.shutdown(cancel_futures=True)


def _own_grid(grid: Grid) -> Grid:
    """Return a grid with a CRS of its own: GDAL's CRSs are not thread-safe."""
    assert grid.crs is not None
    return grid._replace(crs=grid.crs.Clone())


def _fetched_path(decision: Decision, work: Path) -> Path:
    return work / f"{decision.acquisition.date:%Y%m%d}.tif"


def _origin(decision: Decision, query: Query, grid: Grid) -> str:
    """Return what an image is made from, as JSON: with the same origin it need not be fetched again."""
    assert grid.crs is not None
    return json.dumps(
        {
            "items": [[scene.item, hide_secrets(scene.asset), _clouds(scene)] for scene in decision.acquisition.scenes],
            "bands": query.bands,
            "crs": grid.crs.ExportToWkt(),
            "transform": list(grid.transform),
            "shape": grid.shape,
        }
    )


def _clouds(scene: Scene) -> str | None:
    return scene.clouds and hide_secrets(scene.clouds.address)


def _is_fetched(decision: Decision, plan: EventPlan, query: Query, work: Path) -> bool:
    path = _fetched_path(decision, work)
    if not path.exists():
        return False
    try:
        return GeoTiff(path).dataset.GetMetadataItem(FETCHED_TAG) == _origin(decision, query, plan.grid)
    except EventError:
        return False


def _fetch(decision: Decision, query: Query, grid: Grid, windows: Iterable[Window], path: Path) -> None:
    """Fetch one image to a local GeoTIFF of its own pixel type, whose mask marks gaps and clouds."""
    mosaic = Mosaic(decision.acquisition, query, grid)
    height, width = grid.shape
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(mosaic.dtype)
    with written_by_gdal(path) as part:
        options = ["TILED=YES", *fast_compression(), "BIGTIFF=IF_SAFER", "INTERLEAVE=PIXEL"]
        dataset = gdal.GetDriverByName("GTiff").Create(str(part), width, height, 3, kind, options)
        with close_dataset(dataset):
            dataset.SetMetadataItem(FETCHED_TAG, _origin(decision, query, grid))
            dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
            mask = dataset.GetRasterBand(1).GetMaskBand()
            for window in windows:
                values, cloudy = mosaic.read(window)
                valid = ~np.isnan(values[..., 0]) & ~cloudy
                values[~valid] = 0
                stored = np.rint(values).astype(mosaic.dtype) if mosaic.dtype.kind in "iu" else values
                dataset.WriteArray(stored.transpose(2, 0, 1), window.x, window.y)
                mask.WriteArray(valid * np.uint8(255), window.x, window.y)


# --- Writing ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _EightBit:
    """A fetched image as 8-bit RGB, masked where it has no data."""

    file: ImageFile
    stretch: Stretch | None  # None: it has 8 bits

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.file.shape

    def read(self, window: Window) -> np.ma.MaskedArray:
        """Read the pixels of a window, (h, w, 3) uint8, masked."""
        values, valid = self.file.read(window)
        pixels = values if self.stretch is None else self.stretch.to_bytes(values)
        gaps = np.zeros(pixels.shape, bool) if valid is None else np.repeat(~valid[..., None], 3, axis=2)
        return np.ma.MaskedArray(pixels, gaps)


def image_name(decision: Decision, event: str) -> str:
    """Return the name of an image's file. A normal control has no image of an anomaly."""
    role = "anomaly" if decision.role == MONITOR and not event.startswith("0_") else "normal"
    return f"{role}_{decision.acquisition.date:%Y%m%d}.tif"


def _write_images(
    plan: EventPlan, query: Query, files: Sequence[ImageFile], scaling: Stretch | None, folder: Path, event: str
) -> None:
    """Write all images with one stretch."""
    georeference = Georeference(plan.grid.crs, tuple(plan.grid.transform))
    for decision, file in zip(plan.chosen, tqdm(files, "writing", unit="image"), strict=True):
        tags = program_tags() | {
            "ANOMALYCD_ITEMS": ", ".join(scene.item for scene in decision.acquisition.scenes),
            "ANOMALYCD_CATALOG": hide_secrets(query.stac),
            "ANOMALYCD_LICENCE": licence(decision) or "not given",
            "ANOMALYCD_ASSETS": " ".join(hide_secrets(scene.asset) for scene in decision.acquisition.scenes),
        }
        write_raster(folder / image_name(decision, event), _EightBit(file, scaling), georeference, tags)


def licence(decision: Decision) -> str | None:
    """Return the licences of an image's items."""
    return "; ".join(sorted({scene.licence for scene in decision.acquisition.scenes if scene.licence})) or None


def event_record(plan: EventPlan, query: Query, event: str) -> dict[str, Any]:
    """Return the content of `event.json`: the query, the grid, the images, and what was not chosen and why."""
    assert plan.grid.crs is not None
    return {
        "program": program_tags(),
        "catalog": hide_secrets(query.stac),
        "licence": "; ".join(sorted({text for decision in plan.chosen if (text := licence(decision))})) or None,
        "query": {
            "collection": query.collection,
            "asset": query.asset,
            "bbox": list(query.box),
            "date": str(query.event_date),
            "first": str(query.first),
            "last": str(query.last),
            "dates": query.dates,
            "max_cloud": query.max_cloud,
            "images": list(query.images),
            "bands": query.bands,
        },
        "grid": {
            "crs": plan.grid.crs.ExportToWkt(),
            "transform": list(plan.grid.transform),
            "shape": list(plan.grid.shape),
        },
        "images": [_record_of(decision) | {"file": image_name(decision, event)} for decision in plan.chosen],
        "not_chosen": [
            _record_of(decision) | {"reason": decision.reason} for decision in plan.decisions if decision.role is None
        ],
    }


def _record_of(decision: Decision) -> dict[str, Any]:
    return {
        "date": str(decision.acquisition.date),
        "sensor": decision.acquisition.sensor,
        "role": decision.role,
        "coverage": decision.measured.coverage,
        "clouds": decision.measured.clouds,
        "clouds_measured": decision.measured.clouds_measured,
        "items": [
            {
                "id": scene.item,
                "time": scene.time.isoformat(),
                "collection": scene.collection,
                "licence": scene.licence,
                "item": hide_secrets(scene.source),
                "asset": hide_secrets(scene.asset),
            }
            for scene in decision.acquisition.scenes
        ],
    }
