"""Resolves the SAM flags of the command line and loads the engine."""

import argparse
from typing import NamedTuple

import torch

from sam.devices import resolve_device
from sam.engine import SamEngine
from sam.execution import Execution
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

    @property
    def identity(self) -> SamIdentity:
        """What maps record about the engine; available before the weights are loaded."""
        provenance = {
            "sam_model_type": self.model_type,
            "sam_checkpoint_sha256": self.weights.sha256,
            "precision": self.execution.precision,
        }
        return SamIdentity(provenance, self.weights.path.name)

    def load(self) -> SamEngine:
        """Load the weights and return the engine. Raises UsageError if they cannot be used."""
        model = load_model(self.model_type, self.weights.path)
        torch.backends.cudnn.allow_tf32 = False  # else convolutions in fp32 would round to 10 bits on recent GPUs
        return SamEngine(model, self.device, self.execution, SAM_VARIANTS[self.model_type].encoder_kind())


def engine_settings(args: argparse.Namespace, device: torch.device, fetch: bool = True) -> EngineSettings:
    """Resolve the SAM flags; with `fetch`, missing official weights are downloaded.

    Raises UsageError for an unknown model type, and for weights that cannot be found, read or downloaded.
    """
    model_type = args.sam_model_type
    if model_type not in SAM_VARIANTS:  # argparse does not check a default from the environment
        raise UsageError(f"{model_type}: no such SAM model type; choose one of {', '.join(SAM_VARIANTS)}")
    weights = locate_weights(model_type, args.sam_checkpoint, fetch)
    execution = Execution(args.precision, args.points_per_batch, args.encode_batch, args.compile)
    return EngineSettings(model_type, weights, device, execution)


def load_engine(args: argparse.Namespace) -> tuple[SamEngine, SamIdentity]:
    """Load the engine that the flags choose, and log its weights and device. Raises UsageError if that fails."""
    settings = engine_settings(args, resolve_device(args.device))
    weights = settings.weights
    LOG.info("SAM %s: %s (%s) on %s", settings.model_type, weights.path, weights.origin, settings.device)
    return settings.load(), settings.identity
