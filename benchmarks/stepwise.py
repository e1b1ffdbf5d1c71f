"""Computes the windows of a stage one after another, each from reading to storing."""

from pipeline.feature_cache import FeatureCache
from pipeline.stage import StageProgress
from sam.engine import SamEngine


def compute_windows(step: StageProgress, engine: SamEngine, features: FeatureCache | None) -> None:
    """Compute the missing windows of a step's stage into its store. `features`: those kept for stage 2; None: none."""
    assert step.stage is not None
    store = step.stage.store()
    for window in step.missing:
        inputs = step.stage.read(window, engine, features)
        encoded = step.stage.encode(window, inputs, engine, features)
        store.write(window, step.stage.score(window, encoded))
