"""Resolves the SAM flags of the command line and loads the engine."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from sam.devices import resolve_device
from sam.engine import SamEngine
from sam.execution import Execution
from sam.flags import SamFlags
from sam.mask_generator import ignore_points
from sam.models import load_model
from sam.registry import SAM_VARIANTS
from sam.weights import SamIdentity, Weights, locate_weights
from utils import LOG, UsageError


class EngineSettings(NamedTuple):
    """Settings from which an engine is loaded. Can be sent to another process."""

    model_type: str
    weights: Weights
    device: torch.device
    execution: Execution

    def __str__(self) -> str:
        """Text for messages: model type and weights."""
        return f"SAM {self.model_type}: {self.weights.path} ({self.weights.origin})"

    @property
    def identity(self) -> SamIdentity:
        """What maps record about the engine; available before the weights are loaded."""
        provenance = {
            "sam_model_type": self.model_type,
            "sam_checkpoint_sha256": self.weights.sha256,
            "precision": self.execution.precision,
        }
        if self.execution.precision != "fp32":  # maps of versions whose norms had this precision are outdated
            provenance["norms"] = "fp32"
        return SamIdentity(provenance, self.weights.path.name)

    def load(self, points_done: Callable[[int], object] = ignore_points) -> SamEngine:
        """Load the weights and return the engine. Raises UsageError if they cannot be used.

        `points_done`: see `SamEngine`.
        """
        model = load_model(self.model_type, self.weights.path)
        torch.backends.cudnn.allow_tf32 = False  # else convolutions in fp32 would round to 10 bits on recent GPUs
        kind = SAM_VARIANTS[self.model_type].encoder_kind()
        return SamEngine(model, self.device, self.execution, kind, points_done)


def engine_settings(flags: SamFlags, device: torch.device, fetch: bool = True) -> EngineSettings:
    """Resolve the SAM flags; with `fetch`, missing official weights are downloaded.

    Raises UsageError for an unknown model type, and for weights that cannot be found, read or downloaded.
    """
    if flags.model_type not in SAM_VARIANTS:  # argparse does not check a default from the environment
        raise UsageError(f"{flags.model_type}: no such SAM model type; choose one of {', '.join(SAM_VARIANTS)}")
    weights = locate_weights(flags.model_type, flags.checkpoint, fetch)
    execution = Execution(flags.precision, flags.points_per_batch, flags.encode_batch, flags.compile)
    return EngineSettings(flags.model_type, weights, device, execution)


def load_engine(flags: SamFlags) -> tuple[SamEngine, EngineSettings]:
    """Load the engine that the flags choose, and log its weights and device. Raises UsageError if that fails."""
    settings = engine_settings(flags, resolve_device(flags.device))
    LOG.info("%s on %s", settings, settings.device)
    return settings.load(), settings
