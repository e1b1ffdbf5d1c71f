"""The method on one screen: images of one place, as arrays, through both stages (docs/method.md)."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

import config
from pipeline.filtered_map import filter_change_map
from rasters.raster import MemoryRaster
from sam.features import WindowFeatures
from sam.flags import SamFlags
from sam.mask_generator import MaskParameters
from sam.settings import load_engine
from stage1_analysis import change_map
from stage2_analysis import anomaly_map
from utils import EventError, Listing, UsageError, read_event, tile, window_side


class EventMaps(NamedTuple):
    """The files of an event, made by `AnomalyCD.run`."""

    change: Path  # change map of stage 1, a GeoTIFF of one float32 band
    anomaly: Path  # anomaly map of stage 2, likewise
    regions: Path  # GeoPackage: the polygons of the anomaly map


class AnomalyCD:
    """One SAM, with which both stages are computed with the settings of config.py, by default the published ones.

    Images are arrays of (H, W, 3) uint8 RGB, all of one place, on one grid and of one size. The results are those of
    `run.py` bit for bit, with the same SAM on the same machine.
    """

    def __init__(
        self,
        model_type: str = config.SAM_MODEL_TYPE,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        precision: str = "fp32",
        points_per_batch: int | None = None,
        encode_batch: int | None = None,
        compile: bool = False,
        tolerance: int = 0,
    ) -> None:
        """Load a SAM; missing official weights are downloaded. Raises UsageError if that is not possible.

        Parameters
        ----------
        model_type
            vit_b, vit_l or vit_h, or vit_t for MobileSAM.
        checkpoint
            Weights file; None: the official one.
        device
            Device of torch; None: the first GPU, or with a warning the CPU.
        precision
            Of the network: fp32, bf16 or fp16.
        points_per_batch, encode_batch, compile
            As the flags of run.py with these names; they affect speed and memory.
        tolerance
            Feature cells within which a region's best match is looked for; 0: as published.

        """
        path = None if checkpoint is None else Path(checkpoint)
        flags = SamFlags(device, path, model_type, precision, points_per_batch, encode_batch, compile)
        self._engine, self.settings = load_engine(flags)
        self._tolerance = tolerance

    def change(self, reference: np.ndarray, monitor: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
        """Compute stage 1: how much each object changed from the reference to the monitor image.

        Parameters
        ----------
        reference, monitor
            The latest image before the event, and the one after it: (H, W, 3) uint8.
        valid
            (H, W) bool, True where both images hold data; None: everywhere.

        Returns
        -------
        (H, W) float32 in [0, 1]: the change map; NaN where there is no data. Raises ValueError for arrays of other
        shapes or types.

        """
        shape = _shape_of(reference, monitor)
        changes = np.full(shape, np.nan, np.float32)
        for window in tile(*shape, config.STAGE1_PATCH_SIZE):
            part = window.slices
            in_window = None if valid is None else valid[part]
            if in_window is None or in_window.any():
                changes[part] = self._change_in_window(reference[part], monitor[part], in_window)
        return changes

    def _change_in_window(self, reference: np.ndarray, monitor: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
        # SAM encodes each image once; its masks outline the objects, whose features are then compared.
        before, after = self._encode([reference, monitor])
        parameters = MaskParameters.of(config.STAGE1_SAM_PARAMS)
        masks_before, masks_after = (
            self._engine.generator.generate(image, features, parameters).collect()
            for image, features in ((reference, before), (monitor, after))
        )
        return change_map(
            before,
            after,
            masks_before,
            masks_after,
            config.STAGE1_MIN_MASK_PIXELS,
            config.MAX_REGION_FRACTION,
            valid,
            self._tolerance,
        )

    def anomaly(
        self,
        historical: Sequence[np.ndarray],
        monitor: np.ndarray,
        changes: np.ndarray,
        historical_valid: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """Compute stage 2: of the most changed regions, how little the monitor image resembles any earlier image.

        Parameters
        ----------
        historical
            All earlier images, oldest first; the last one is the reference image of `change`. (H, W, 3) uint8 each.
        monitor
            The image after the event.
        changes
            The result of `change` for the whole place: its quantile says which regions are compared.
        historical_valid
            For each earlier image (H, W) bool, where it holds data, or None: everywhere. Default: everywhere.

        Returns
        -------
        (H, W) float32 in [0, 2]: the anomaly map, 0 outside the compared regions, NaN where `changes` is NaN. Raises
        ValueError for arrays of other shapes or types.

        """
        shape = _shape_of(*historical, monitor)
        if changes.shape != shape or changes.dtype != np.float32:
            raise ValueError(f"changes: {changes.shape} {changes.dtype}; needs {shape} float32, the result of change()")
        valid = historical_valid or [None] * len(historical)
        side = window_side(shape, config.STAGE2_SMALL_PATCH_SIZE, config.STAGE2_PATCH_SIZE)
        filtered = filter_change_map(MemoryRaster(changes), config.STAGE2_CHANGE_MAP_QUANTILE)
        anomalies = np.full(shape, np.nan, np.float32)
        for window in tile(*shape, side):
            part, in_window = window.slices, filtered.read(window)
            if np.isnan(in_window).all():
                continue
            # Dates that hold no data in any region are not compared.
            older = [date for date, mask in enumerate(valid[:-1]) if mask is None or mask[part][in_window > 0].any()]
            # The reference and the monitor image are one batch of the encoder, as in stage 1.
            features = self._encode([historical[date][part] for date in older])
            before, after = self._encode([historical[-1][part], monitor[part]])
            anomalies[part] = anomaly_map(
                in_window,
                [*features, before],
                after,
                config.STAGE2_MIN_MASK_PIXELS,
                config.MAX_REGION_FRACTION,
                [*(mask if (mask := valid[date]) is None else mask[part] for date in older), None],
                config.STAGE2_MIN_DATE_COVERAGE,
                self._tolerance,
            )
        return anomalies

    def _encode(self, images: Sequence[np.ndarray]) -> list[WindowFeatures]:
        return self._engine.encode([self._engine.scale(image) for image in images])

    def run(self, event_folder: str | Path, output_root: str | Path = config.DEFAULT_OUTPUT_ROOT) -> EventMaps:
        """Run both stages of an event on the disk, as `run.py` does, and write all of its outputs. Needs GDAL.

        Maps that exist are computed again. An interrupted call continues where it ended.

        Parameters
        ----------
        event_folder
            Folder with the event's images (docs/data.md).
        output_root
            Folder for the outputs of all events, in the layout of `run.py`.

        Returns
        -------
        The paths of the maps and polygons. Raises EventError if the images cannot be used, OSError if nothing can be
        written, UsageError without GDAL.

        """
        if find_spec("osgeo") is None:
            raise UsageError('files need GDAL: pip install "GDAL==$(gdal-config --version)", or pass arrays')
        from cli.progress import follow_run
        from img_io import ImageOptions
        from pipeline.local import run_events_here
        from pipeline.stage import StageRequest, WindowWork, count_windows
        from pipeline.stage1 import Stage1Request, Stage1Settings
        from pipeline.stage2 import Stage2Request, Stage2Settings

        event = read_event(Path(event_folder))
        folders = [
            Path(output_root) / root.name / event.name for root in (config.STAGE1_OUTPUT_DIR, config.STAGE2_OUTPUT_DIR)
        ]
        maps = EventMaps(
            folders[0] / config.CHANGE_MAP_NAME, folders[1] / config.ANOMALY_MAP_NAME, folders[1] / config.REGIONS_NAME
        )
        settings1 = Stage1Settings(config.STAGE1_PATCH_SIZE, tolerance=self._tolerance)
        settings2 = Stage2Settings(tolerance=self._tolerance)
        stages: list[StageRequest] = [
            Stage1Request(event, folders[0], ImageOptions(), False, settings1),
            Stage2Request(event, folders[1], ImageOptions(), False, settings2, maps.change),
        ]
        listing, work = Listing([event]), WindowWork.of(self.settings.model_type)
        with follow_run("both stages", listing, count_windows(lambda _: stages, work)) as progress:
            run_events_here(listing, lambda _: stages, self.settings.identity, lambda: self._engine, progress, work)
        for _, reason in progress.summary.failed:
            raise EventError(reason)
        return maps


def _shape_of(*images: np.ndarray) -> tuple[int, int]:
    """Return the height and width that images share. Raises ValueError if they are no RGB images of one size."""
    for image in images:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image is {image.shape} {image.dtype}; needs (height, width, 3) uint8 RGB")
        if image.shape != images[0].shape:
            raise ValueError(
                f"images of {images[0].shape[:2]} and {image.shape[:2]} pixels; needs one size and one grid"
            )
    return images[0].shape[:2]
