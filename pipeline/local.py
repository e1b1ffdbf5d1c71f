"""Runs the stages of events in this process, with one SAM, which is loaded for the first missing window."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache

from cli.progress import run_events
from img_io import event_shape
from pipeline.feature_cache import FeatureCache
from pipeline.stage import Stage, StageRequest, advance, event_locks, join_reasons
from pipeline.stage2 import Stage2Settings
from pipeline.windows import compute_windows
from sam.engine import SamEngine
from sam.settings import EngineSettings
from sam.weights import SamIdentity
from utils import Event, Listing, Window

EngineLoader = Callable[[], SamEngine]
Plan = Callable[[Event], Sequence[StageRequest]]  # the stages to run for an event


def run_here(name: str, listing: Listing, plan: Plan, settings: EngineSettings) -> int:
    """Run the stages of every event; returns the exit code. `name`: name of the run, for its summary."""
    with ExitStack() as stack:
        load_engine = cache(lambda: stack.enter_context(settings.load()))
        return run_events(
            name,
            listing,
            lambda event: sum(request.count_windows() for request in plan(event)),
            lambda event, window_done: run_event(plan(event), settings.identity, load_engine, window_done),
        ).exit_code


def run_event(
    requests: Sequence[StageRequest], sam: SamIdentity, load_engine: EngineLoader, window_done: Callable[..., object]
) -> str | None:
    """Run the stages of one event; returns the reasons if all stages are skipped, else None.

    In windows common to both stages, stage 2 reuses the features that stage 1 encoded.
    """
    shared = Stage2Settings().tile(event_shape(requests[0].event)) if len(requests) > 1 else []
    with event_locks(requests), FeatureCache(requests[0].folder, shared) as features:
        progress = advance(None, requests, sam)
        reasons = progress.reasons
        while progress.stage is not None:
            window_done(progress.finished)
            compute_missing(progress.stage, progress.missing, load_engine, features, window_done)
            progress = advance(progress.stage, progress.rest, sam)
            reasons += progress.reasons
    return join_reasons(reasons)


def compute_missing(
    stage: Stage,
    missing: Sequence[Window],
    load_engine: EngineLoader,
    features: FeatureCache | None,
    window_done: Callable[[], object],
) -> None:
    """Compute windows of a stage into its store; on failure, remove the store if no window is finished."""
    store = stage.store()
    with store.removed_if_empty():
        engine = load_engine()
        compute_windows(
            lambda window: stage.read(window, engine, features),
            lambda window, item: stage.compute(window, item, engine, features),
            missing,
            store,
            window_done,
        )
