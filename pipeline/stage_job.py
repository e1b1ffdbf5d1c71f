"""The steps of an event, which both stages take alike: it is opened, its windows are computed, it is put together."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from img_io import EventImages, ImageOptions
from pipeline.event_lock import event_lock
from pipeline.window_store import WindowStore
from pipeline.windows import WindowComputer
from rasters.provenance import file_identities
from rasters.raster import Raster
from sam.weights import SamIdentity
from utils import Event, EventError, Window

if TYPE_CHECKING:
    from pipeline.feature_cache import FeatureCache
    from sam.engine import SamEngine


@dataclass(frozen=True)
class StageJob(ABC):
    """One stage of one event, opened and checked. Can be pickled: another process opens the files again."""

    event: Event
    folder: Path  # for the event's outputs
    images: EventImages
    parameters: dict[str, Any]  # for the maps' tags: all that has a part in them
    checkpoint: str

    MAP_NAME: ClassVar[str]  # of the map that the windows make up
    SKIP_REASON: ClassVar[str]  # the reason why an event is skipped

    @property
    def map_path(self) -> Path:
        """Where the map goes that the windows make up."""
        return self.folder / self.MAP_NAME

    @cached_property
    def windows(self) -> list[Window]:
        """All of the map, in order."""
        return self.tile_event()

    @abstractmethod
    def tile_event(self) -> list[Window]:
        """The stage's windows of an image of this size."""

    @abstractmethod
    def is_current(self) -> bool:
        """Whether the maps are there, whole, and made with the same parameters from the same images."""

    @abstractmethod
    def restore_side_files(self) -> None:
        """Make again what else belongs to maps that are current, where it is missing."""

    @abstractmethod
    def prepare(self, scratch: Path) -> "PreparedJob":
        """Do what goes before the first window. `scratch`: a folder for files that are needed until the last one."""

    def store(self) -> WindowStore:
        """Where finished windows are kept until the map is put together."""
        return WindowStore(self.folder / f".{self.MAP_NAME}.windows", self.images.shape, self.windows, self.parameters)

    def check_images(self) -> None:
        """Raises EventError where an image is not the one that the job was opened with, as on another machine."""
        for name, expected in self.parameters["images"].items():
            path = self.event.folder / name
            if file_identities([path])[name] != expected:
                raise EventError(f"{path}: has changed since the run began, or is another file on this machine")


class PreparedJob(ABC):
    """A job whose windows can be computed, in any order and in any process, and then be put together."""

    job: StageJob

    @abstractmethod
    def work(self, engine: "SamEngine", cache: "FeatureCache | None") -> WindowComputer:
        """How the windows are computed. `cache`: keeps features from one stage to the next."""

    @abstractmethod
    def assemble(self, scores: Raster) -> None:
        """Write the outputs from all windows together."""


@dataclass(frozen=True)
class StagePlan(ABC):
    """One stage of one event, before any of its files is opened. Can be pickled."""

    event: Event
    folder: Path  # for the event's outputs
    options: ImageOptions
    skip_existing: bool  # leave maps alone that are current

    @abstractmethod
    def tile_event(self) -> list[Window]:
        """The stage's windows, in order. Raises EventError where the reference image cannot be opened."""

    def count_windows(self) -> int:
        """How many windows there are. Raises EventError where the reference image cannot be opened."""
        return len(self.tile_event())

    @abstractmethod
    def open(self, sam: SamIdentity) -> StageJob:
        """Open all files. Raises EventError where they do not go together."""


class StageProgress(NamedTuple):
    """How far an event has come."""

    reasons: list[str | None]  # for each stage that ended since the last step: why it was skipped, None: it is done
    prepared: PreparedJob | None = None  # the stage whose windows come next; None: all stages have ended
    missing: Sequence[Window] = ()  # of this stage's windows
    rest: Sequence[StagePlan] = ()  # the stages after it


def advance(finished: PreparedJob | None, stages: Sequence[StagePlan], sam: SamIdentity) -> StageProgress:
    """Put a stage together whose windows are finished, if any, and go on to where the next windows are missing.

    Safe to be called again, where a call was cut off.
    """
    reasons: list[str | None] = []
    if finished is not None:
        _put_together(finished)
        reasons.append(None)
    for number, stage in enumerate(stages, 1):
        job = stage.open(sam)
        if stage.skip_existing and job.is_current():
            job.restore_side_files()
            reasons.append(job.SKIP_REASON)
            continue
        store = job.store()
        with store.removed_if_empty():
            already = store.begin()
            prepared = job.prepare(store.folder)
        missing = [window for window in job.windows if window not in already]
        if missing:
            return StageProgress(reasons, prepared, missing, stages[number:])
        _put_together(prepared)
        reasons.append(None)
    return StageProgress(reasons)


def _put_together(prepared: PreparedJob) -> None:
    job, store = prepared.job, prepared.job.store()
    if not store.folder.exists() and job.is_current():
        return  # by a call that was cut off when all was done
    prepared.assemble(store)
    store.remove()


@contextmanager
def event_locks(stages: Sequence[StagePlan]) -> Iterator[None]:
    """Hold the locks of all folders that stages of an event write to. Raises EventBusyError."""
    with ExitStack() as locks:
        for folder in dict.fromkeys(stage.folder.absolute() for stage in stages):
            locks.enter_context(event_lock(folder))
        yield


def join_reasons(reasons: Sequence[str | None]) -> str | None:
    """Why an event is skipped: the reasons of its stages, where all of them have one."""
    given = [reason for reason in reasons if reason is not None]
    return " and ".join(given) if len(given) == len(reasons) else None
