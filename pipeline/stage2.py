"""Stage 2 of an event: change map and all historical images → anomaly map (docs/method.md, section 4)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

import config
from cli.provenance import file_identities
from evaluation.explanations import ExplanationMap, ExplanationRaster
from evaluation.map_origin import describe_origin
from img_io import EventImages, open_event, read_window, valid_in_all
from pipeline.explanation import StoredExplanation, empty_table, region_table
from pipeline.filtered_map import FilteredMap, filter_change_map
from pipeline.side_outputs import AnomalyOutputs, Stage2Extras, write_map_style
from pipeline.stage import Stage, StageRequest, StageSettings
from pipeline.window_store import ComputedWindow, WindowStore
from rasters.cog import write_raster
from rasters.gdal_output import remove_outputs
from rasters.maps import MapState, ScoreMap, find_map, map_state, map_tags, open_stage_map, read_parameters
from rasters.raster import Raster, RawRaster, strips
from sam.weights import SamIdentity
from utils import LOG, Event, EventError, Window, date_text, differing_keys, from_config, tile, window_side

if TYPE_CHECKING:
    from pipeline.feature_cache import FeatureCache
    from sam.engine import SamEngine, ScaledImage
    from sam.features import WindowFeatures

CHANGES_NAME = "changes"  # file in the window store's folder


@dataclass(frozen=True)
class Stage2Settings(StageSettings):
    """Settings that affect an anomaly map; recorded in the map under these names."""

    change_map_quantile: float = from_config("STAGE2_CHANGE_MAP_QUANTILE")
    # Side of a window, pixels: the first if the image's shorter side is below the second, else the second.
    patch_sizes: list[int] = field(default_factory=lambda: [config.STAGE2_SMALL_PATCH_SIZE, config.STAGE2_PATCH_SIZE])
    min_region_pixels: int = from_config("STAGE2_MIN_MASK_PIXELS")
    max_region_fraction: float = from_config("MAX_REGION_FRACTION")
    min_date_coverage: float = from_config("STAGE2_MIN_DATE_COVERAGE")

    def tile(self, shape: tuple[int, int]) -> list[Window]:
        """Return the windows of an image of this height and width (docs/method.md, section 2)."""
        return tile(*shape, window_side(shape, *self.patch_sizes), self.overlap)


@dataclass(frozen=True)
class Stage2Request(StageRequest):
    """Stage 2 of an event, before its files are opened."""

    settings: Stage2Settings
    change_map_path: Path
    extras: Stage2Extras = field(default_factory=Stage2Extras)

    NAME: ClassVar[str] = "stage 2"

    def images_per_window(self) -> tuple[int, int]:
        """Return how many images of a window are encoded, and of how many masks are generated."""
        return len(self.event.historical) + 1, 0

    def open(self, sam: SamIdentity) -> "Stage2":
        """Open all images and the change map. Raises EventError if a file is unusable or the files do not match."""
        images = open_event(self.event, self.options)
        made_with = sam.provenance | images.parameters
        changes = open_change_map(self.change_map_path, self.event, images.shape, made_with)
        inputs = {
            "images": file_identities([*self.event.historical, self.event.monitor]),
            "stage1": read_parameters(changes.path),
        }
        return Stage2(self, images, made_with | inputs | self.settings.recorded(), sam.checkpoint, changes)


def open_change_map(path: Path, event: Event, shape: tuple[int, int], made_with: dict[str, Any]) -> ScoreMap:
    """Open stage 1's change map of an event, or the one of another program; see `find_map`.

    `made_with`: the parameters of stage 2; a warning names those that differ from stage 1's. Raises EventError if the
    map is missing, damaged or not of this shape, or if several files match its name.
    """
    changes = open_stage_map(path, stage=1)
    path = changes.path
    if changes.shape != shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (changes.shape, shape))
        raise EventError(f"{path} and {event.monitor}: sizes differ, {sizes}; run stage 1 again")
    recorded = read_parameters(path)
    other = sorted(key for key, value in made_with.items() if recorded is not None and recorded.get(key) != value)
    if other:
        LOG.warning("%s: was made with different settings than stage 2's: %s", path, ", ".join(other))
    return changes


class UnencodedDates(NamedTuple):
    """A window of the change map, and of the dates that are not in the cache."""

    changes: np.ndarray  # (h, w) float32, filtered
    scaled: list[list["ScaledImage"]]  # in the groups that are encoded together; empty if no pixel holds data
    older: list[int]  # the dates before the reference image that are compared, by their index
    older_valid: list[np.ndarray | None]  # where these dates hold data; None: everywhere
    pair_is_cached: bool  # whether the cache holds the features of the reference and the monitor image


class EncodedDates(NamedTuple):
    """A window of the change map, and the features of the dates that are compared."""

    changes: np.ndarray  # (h, w) float32, filtered
    features: "list[WindowFeatures]"  # of the compared dates and of the monitor image; empty if no pixel holds data
    older: list[int]  # as in UnencodedDates
    older_valid: list[np.ndarray | None]  # as in UnencodedDates


@dataclass(frozen=True)
class Stage2(Stage):
    """Stage 2 of an event, opened and checked."""

    request: Stage2Request
    changes: ScoreMap  # stage 1's change map
    filtered: FilteredMap | None = None  # set by `prepare`

    MAP_NAME: ClassVar[str] = config.ANOMALY_MAP_NAME
    SKIP_REASON: ClassVar[str] = "its anomaly map exists"
    RECOMPUTE_FLAGS: ClassVar[str] = "without --skip-existing (run.py: --skip-existing-stage2)"

    def state(self) -> MapState:
        """Return the state of the anomaly map; if it is current, the other maps must be so, too.

        Raises EventError if several files may be one of the maps.
        """
        anomalies = self._state_of(self.MAP_NAME)
        if anomalies is MapState.CURRENT and self._state_of(config.FILTERED_MAP_NAME) is MapState.OUTDATED:
            return MapState.OUTDATED
        if anomalies is MapState.CURRENT and self.request.extras.explain:
            explanation = map_state(self.explanation_path, self.images.shape, self.parameters, ExplanationMap)
            if explanation is not MapState.CURRENT:
                LOG.info("%s: is computed again, because it has no current explanation (--explain)", self.map_path)
                return MapState.OUTDATED
        return anomalies

    def _state_of(self, name: str) -> MapState:
        return map_state(find_map(self.folder / name), self.images.shape, self.parameters)

    @property
    def explanation_path(self) -> Path:
        """Path of the explanation map."""
        return self.folder / config.EXPLANATION_NAME

    @property
    def side_outputs(self) -> AnomalyOutputs:
        """The preview and the polygons."""
        origin = describe_origin(self.parameters, map_tags(self.parameters, self.checkpoint))
        return AnomalyOutputs(self.folder, self.event, self.images.georeference, self.request.extras, origin)

    def _current_explanation(self) -> ExplanationMap | None:
        """Return the explanation map of an earlier run, if it was made with the same parameters."""
        if not self.explanation_path.exists():
            return None
        try:
            found, recorded = ExplanationMap(self.explanation_path), read_parameters(self.explanation_path)
        except EventError:
            return None
        return None if differing_keys(recorded or {}, self.parameters) else found

    @property
    def store_parameters(self) -> dict[str, Any]:
        """Stored windows have a table of their regions if these are explained."""
        return {"explain": True} if self.request.extras.explain else {}

    def prepare(self, scratch: Path) -> "Stage2":
        """Return the stage with its filtered change map.

        Only pixels with data in the reference and the monitor image count in the quantile.
        """
        changes = _changes_with_data(self.changes, self.images, scratch / CHANGES_NAME)
        return replace(self, filtered=filter_change_map(changes, self.request.settings.change_map_quantile))

    def read(self, window: Window, engine: "SamEngine", cache: "FeatureCache | None") -> UnencodedDates:
        """Read the filtered change map, and all dates that are not in the cache, scaled for the encoder.

        Dates before the reference image that hold no data in any region of the window are left out. The reference and
        the monitor image are one group, as in stage 1. So the batches, and with them the last bits of the features, are
        the same with and without the cache.
        """
        assert self.filtered is not None
        changes = self.filtered.read(window)
        if np.isnan(changes).all():
            return UnencodedDates(changes, [], [], [], False)
        pair = (self.images.reference, self.images.monitor)
        is_cached = cache is not None and all(cache.has(image.path, window) for image in pair)
        older: list[int] = []
        older_scaled: list[ScaledImage] = []
        older_valid: list[np.ndarray | None] = []
        for date, image in enumerate(self.images.historical[:-1]):
            pixels = read_window(image, window)  # one date at a time: at full size they take several times the memory
            if pixels.valid is None or pixels.valid[changes > 0].any():
                older.append(date)
                older_scaled.append(engine.scale(pixels.rgb))
                older_valid.append(pixels.valid)
        reference_and_monitor = [] if is_cached else [engine.scale(read_window(image, window).rgb) for image in pair]
        scaled = [group for group in (older_scaled, reference_and_monitor) if group]
        return UnencodedDates(changes, scaled, older, older_valid, is_cached)

    def encode(
        self, window: Window, inputs: UnencodedDates, engine: "SamEngine", cache: "FeatureCache | None"
    ) -> EncodedDates:
        """Encode the dates that are not in the cache."""
        features = [encoded for group in inputs.scaled for encoded in engine.encode(group)]
        if inputs.pair_is_cached and cache is not None:
            pair = (self.images.reference, self.images.monitor)
            features += [cache.get(image.path, window, engine.device) for image in pair]
        return EncodedDates(inputs.changes, features, inputs.older, inputs.older_valid)

    def score(self, window: Window, encoded: EncodedDates) -> ComputedWindow:
        """Compare the regions of a window in all dates."""
        from stage2_analysis import ChangedRegions, compare_dates  # loads torch, which is not needed to write maps

        number, settings, explain = len(self.images.historical), self.request.settings, self.request.extras.explain
        if not encoded.features:
            return ComputedWindow(encoded.changes, empty_table(number) if explain else None)
        regions = ChangedRegions.of(encoded.changes, settings.min_region_pixels, settings.max_region_fraction)
        similarities = compare_dates(
            regions,
            encoded.features[:-1],
            encoded.features[-1],
            [*encoded.older_valid, None],
            settings.min_date_coverage,
            between_dates=explain,
            tolerance=settings.tolerance,
        )
        scores = regions.paint(similarities.scores)
        if not explain:
            return ComputedWindow(scores)
        dates = [*encoded.older, number - 1]
        return ComputedWindow(scores, region_table(regions.values, similarities, dates, number))

    def write_outputs(self, store: WindowStore) -> None:
        """Write the explanation map, the preview, the polygons, the filtered change map and the anomaly map."""
        assert self.filtered is not None
        tags, georeference = map_tags(self.parameters, self.checkpoint), self.images.georeference
        with ThreadPoolExecutor(1, "explanation") as thread:
            explanation: ExplanationRaster | None
            written = None
            if self.request.extras.explain:
                dates = [date_text(path) for path in self.event.historical]
                explanation = StoredExplanation(store, self.filtered, dates)
                names = [*dates, "usual score, 0 to 2"]
                # It is the largest output; the others are written meanwhile.
                written = thread.submit(write_raster, self.explanation_path, explanation, georeference, tags, names)
            else:
                explanation = self._current_explanation()
                if explanation is None:
                    remove_outputs(self.explanation_path)  # made with other parameters
            self.side_outputs.write(store, explanation)
            filtered_path = self.folder / config.FILTERED_MAP_NAME
            write_map_style(filtered_path)
            write_raster(filtered_path, self.filtered, georeference, tags, ["change score, 0 to 1, filtered"])
            if written is not None:
                write_map_style(self.explanation_path, len(self.event.historical) + 1)
                written.result()
        write_map_style(self.map_path)
        write_raster(self.map_path, store, georeference, tags, ["anomaly score, 0 to 2"])

    def has_side_outputs(self) -> bool:
        """Return whether the preview and the polygons exist and were made with the current evaluation settings."""
        return self.side_outputs.are_current(explained=self._current_explanation() is not None)

    def write_side_outputs(self, scores: Raster) -> None:
        """Write the preview and the polygons, explained if possible."""
        self.side_outputs.write(scores, self._current_explanation())


def _changes_with_data(changes: ScoreMap, images: EventImages, path: Path) -> Raster:
    """Return the change map with NaN where the reference or the monitor image holds no data.

    The result is in a new file at `path`; if neither image can lack data, it is `changes` itself.
    """
    pair = [image for image in (images.reference, images.monitor) if image.may_lack_data]
    if not pair:
        return changes
    combined = RawRaster(path, changes.shape)
    combined.create()
    for window in strips(changes.shape):
        values = changes.read(window)
        valid = valid_in_all(read_window(image, window) for image in pair)
        combined.write(window, values if valid is None else np.where(valid, values, np.float32(np.nan)))
    return combined
