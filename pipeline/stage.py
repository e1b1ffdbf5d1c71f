"""The steps of one stage of one event, common to both stages: open, skip or resume, compute windows, write maps.

`stage1.py` and `stage2.py` implement the steps; `advance` defines their order.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import config
from cli.event_lock import event_lock
from cli.progress import Kind
from cli.provenance import file_identities
from img_io import EventImages, ImageOptions, event_shape
from pipeline.window_store import ComputedWindow, WindowStore
from rasters.maps import MapState, ScoreMap, find_map, read_parameters
from rasters.raster import Raster
from sam.registry import SAM_VARIANTS
from sam.weights import SamIdentity
from utils import LOG, Event, EventError, Window, owned_parts

if TYPE_CHECKING:
    from pipeline.feature_cache import FeatureCache
    from sam.engine import SamEngine


@dataclass(frozen=True, kw_only=True)
class StageSettings(ABC):
    """Settings that affect a stage's map; recorded in the map under these names."""

    overlap: int = 0  # of neighbouring windows, pixels
    tolerance: int = 0  # feature cells within which a region's best match is looked for

    @abstractmethod
    def tile(self, shape: tuple[int, int]) -> list[Window]:
        """Return the windows of an image of this height and width."""

    def parts(self, shape: tuple[int, int]) -> dict[Window, Window]:
        """Return the windows of an image, in order, and the part of the map that each owns."""
        return owned_parts(self.tile(shape), deepest=self.overlap > 0)

    def recorded(self) -> dict[str, Any]:
        """Return what a map records, without `overlap` and `tolerance` if they are 0: older versions had neither."""
        return {name: value for name, value in asdict(self).items() if name not in ("overlap", "tolerance") or value}


@dataclass(frozen=True)
class StageRequest(ABC):
    """One stage of one event, before its files are opened. Can be pickled."""

    event: Event
    folder: Path  # of the event's outputs
    options: ImageOptions
    skip_existing: bool  # skip the stage if its maps are current or made by another program
    settings: StageSettings

    NAME: ClassVar[str]

    def tile_event(self) -> list[Window]:
        """Return the stage's windows, in order. Raises EventError if the reference image cannot be opened."""
        return self.settings.tile(event_shape(self.event))

    @abstractmethod
    def images_per_window(self) -> tuple[int, int]:
        """Return how many images of a window are encoded, and of how many masks are generated."""

    @abstractmethod
    def open(self, sam: SamIdentity) -> "Stage":
        """Open all files. Raises EventError if a file is unusable or the files do not match."""


StagePlan = Callable[[Event], Sequence[StageRequest]]  # the stages to run for an event


@dataclass(frozen=True)
class WindowWork:
    """The work of a window in points, so that the windows of both stages share a progress bar."""

    per_encoding: float = 1.0  # of an image
    per_masks: float = 1.0  # of an image

    @classmethod
    def of(cls, model_type: str) -> "WindowWork":
        """Return the work of a SAM with the points of config.py."""
        from sam.mask_generator import MaskParameters  # loads torch

        return cls(SAM_VARIANTS[model_type].encoding_points, MaskParameters.of(config.STAGE1_SAM_PARAMS).points)

    def kind(self, request: StageRequest) -> Kind:
        """Return the kind of a stage's windows."""
        encoded, masked = request.images_per_window()
        return Kind(request.NAME, encoded * self.per_encoding + masked * self.per_masks)


EQUAL_WORK = WindowWork()


def count_windows(plan: StagePlan, work: WindowWork = EQUAL_WORK) -> Callable[[Event], Counter[Kind]]:
    """Return a function that counts the windows of each stage of an event; it raises EventError as a request does."""

    def count(event: Event) -> Counter[Kind]:
        windows: Counter[Kind] = Counter()
        for request in plan(event):
            windows[work.kind(request)] += len(request.tile_event())
        return windows

    return count


@dataclass(frozen=True)
class Stage(ABC):
    """One stage of one event, opened and checked. Can be pickled: another process opens the files again."""

    request: StageRequest
    images: EventImages
    parameters: dict[str, Any]  # everything that affects the maps, recorded in their tags; JSON
    checkpoint: str  # file name of the weights

    MAP_NAME: ClassVar[str]  # file name of the map that is computed window by window
    SKIP_REASON: ClassVar[str]  # why an event with existing maps is skipped
    RECOMPUTE_FLAGS: ClassVar[str]  # how to call the scripts so that existing maps are computed again

    @property
    def event(self) -> Event:
        """The event."""
        return self.request.event

    @property
    def folder(self) -> Path:
        """Folder of the event's outputs."""
        return self.request.folder

    @property
    def windows(self) -> list[Window]:
        """The windows of the map, in order."""
        return self.request.settings.tile(self.images.shape)

    @property
    def store_parameters(self) -> dict[str, Any]:
        """Further parameters of the stored windows, which do not affect the map; JSON."""
        return {}

    @property
    def map_path(self) -> Path:
        """Path of the map that is computed window by window, as the stage writes it."""
        return self.folder / self.MAP_NAME

    @abstractmethod
    def state(self) -> MapState:
        """Return the state of the stage's maps. Raises EventError if several files may be one of them."""

    @abstractmethod
    def has_side_outputs(self) -> bool:
        """Return whether the preview and the polygons exist and were made with the current settings."""

    @abstractmethod
    def write_side_outputs(self, scores: Raster) -> None:
        """Write the preview and the polygons. `scores`: the map, float32."""

    @abstractmethod
    def write_outputs(self, store: WindowStore) -> None:
        """Write all outputs, the map last: a stage with a current map is finished. `store`: with all windows."""

    @abstractmethod
    def read(self, window: Window, engine: "SamEngine", cache: "FeatureCache | None") -> Any:
        """Read and scale the inputs of a window; may be called on any thread."""

    @abstractmethod
    def encode(self, window: Window, inputs: Any, engine: "SamEngine", cache: "FeatureCache | None") -> Any:
        """Do the device work of a window; called for one window at a time. `inputs`: the result of `read`."""

    @abstractmethod
    def score(self, window: Window, encoded: Any) -> ComputedWindow:
        """Return the results of a window; may be called on any thread. `encoded`: the result of `encode`."""

    def prepare(self, scratch: Path) -> "Stage":
        """Return the stage, prepared for its windows. `scratch`: folder for files needed until the last window."""
        return self

    def store(self) -> WindowStore:
        """Return the store that keeps finished windows until the map is written."""
        path = self.folder / f".{self.MAP_NAME}.windows"
        parts = self.request.settings.parts(self.images.shape)
        return WindowStore(path, self.images.shape, parts, self.parameters | self.store_parameters)

    def can_be_skipped(self) -> bool:
        """Return whether the maps exist: they are current, or made by another program, which a message says.

        Raises EventError if several files may be one of the maps.
        """
        state = self.state()
        if state is MapState.FOREIGN:
            LOG.info(
                "%s: skipped, a map without recorded parameters counts as existing; to compute it again, run %s",
                *(find_map(self.map_path), self.RECOMPUTE_FLAGS),
            )
        return state is not MapState.OUTDATED

    def complete_outputs(self) -> None:
        """Write the preview and the polygons again from the map, if they are missing or have other settings.

        Removes stored windows that a run left which was killed after it had written the map. Beside a map of another
        program, nothing is changed.
        """
        path = find_map(self.map_path)
        if read_parameters(path) is None:
            return
        self.store().remove()
        if not self.has_side_outputs():
            LOG.info("%s: preview and polygons are written again from the map", path)
            self.write_side_outputs(ScoreMap(path))

    def check_images(self) -> None:
        """Raise EventError if an image differs from the one with which the stage was opened on another machine."""
        for name, expected in self.parameters["images"].items():
            path = self.event.folder / name
            if file_identities([path])[name] != expected:
                raise EventError(f"{path}: changed after the run began, or differs on this machine")


class StageProgress(NamedTuple):
    """The progress of an event after a step: the stages that ended, and the next one to compute."""

    reasons: list[str | None]  # one per stage that ended in this step: why it was skipped; None: it is done
    stage: Stage | None = None  # prepared, with windows to compute; None: all stages have ended
    missing: Sequence[Window] = ()  # unfinished windows of this stage
    rest: Sequence[StageRequest] = ()  # the stages after this one

    @property
    def finished(self) -> int:
        """The number of windows of the stage that an earlier run finished."""
        return len(self.stage.windows) - len(self.missing) if self.stage else 0


def advance(finished: Stage | None, requests: Sequence[StageRequest], sam: SamIdentity) -> StageProgress:
    """Write the maps of `finished`, a stage without missing windows, if given; then find the next missing windows.

    A stage with existing maps is skipped; a stage with finished windows in its store is resumed. An interrupted call
    can be repeated.
    """
    reasons: list[str | None] = []
    if finished is not None:
        _finish(finished)
        reasons.append(None)
    for number, request in enumerate(requests, 1):
        stage = request.open(sam)
        if request.skip_existing and stage.can_be_skipped():
            stage.complete_outputs()
            reasons.append(stage.SKIP_REASON)
            continue
        store = stage.store()
        with store.removed_if_empty():
            done = store.begin()
            stage = stage.prepare(store.folder)
        missing = [window for window in stage.windows if window not in done]
        if missing:
            return StageProgress(reasons, stage, missing, requests[number:])
        _finish(stage)
        reasons.append(None)
    return StageProgress(reasons)


def _finish(stage: Stage) -> None:
    """Write all outputs of a stage, then remove its stored windows."""
    store = stage.store()
    if not store.folder.exists() and stage.state() is MapState.CURRENT:
        return  # already finished by an interrupted call
    stage.write_outputs(store)
    store.remove()


@contextmanager
def event_locks(requests: Sequence[StageRequest]) -> Iterator[None]:
    """Hold the locks of all output folders of an event. Raises EventBusyError."""
    with ExitStack() as locks:
        for folder in dict.fromkeys(request.folder.absolute() for request in requests):
            locks.enter_context(event_lock(folder))
        yield


def join_reasons(reasons: Sequence[str | None]) -> str | None:
    """Return why an event is skipped: the reasons of its stages if all of them have one, else None."""
    given = [reason for reason in reasons if reason is not None]
    return " and ".join(given) if len(given) == len(reasons) else None
