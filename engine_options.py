"""The command line's flags about SAM, and the engine that they ask for."""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch

import config
from devices import resolve_device
from provenance import SamIdentity
from sam_engine import PRECISIONS, Execution, SamEngine
from sam_models import MODEL_TYPES, load_model
from sam_weights import Weights, locate_weights
from utils import LOG, UsageError, positive_int


def add_sam_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that choose the device, the weights, and how the engine computes."""
    parser.add_argument(
        "--device",
        help=f"torch device (default: {config.DEFAULT_DEVICE}; where there is no GPU, cpu with a warning)",
    )
    parser.add_argument(
        "--sam-checkpoint",
        type=Path,
        help=f"SAM weights (default: {config.SAM_CHECKPOINT} for {config.SAM_MODEL_TYPE}, "
        f"else the model's own file in {config.WEIGHTS_DIR} or, for vit_demo, in demo/)",
    )
    parser.add_argument(
        "--sam-model-type",
        choices=MODEL_TYPES,
        default=config.SAM_MODEL_TYPE,
        help="architecture of the weights; vit_demo is a toy for demos and tests (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="fp32",
        help="of the network's arithmetic; bf16 and fp16 are faster on a GPU and change the maps, see "
        "docs/benchmarks.md (default: %(default)s)",
    )
    parser.add_argument(
        "--points-per-batch",
        type=positive_int,
        help="points that SAM decodes at once (default: what the device's memory allows)",
    )
    parser.add_argument(
        "--encode-batch",
        type=positive_int,
        help="images that SAM encodes at once (default: what the device's memory allows)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the image encoder with torch.compile: minutes at the start, needs a C++ compiler "
        "(default: as it is)",
    )


class EngineSettings(NamedTuple):
    """Which engine to load. Can be sent to another process."""

    model_type: str
    weights: Weights
    device: torch.device
    execution: Execution

    @property
    def identity(self) -> SamIdentity:
        """What maps are told of the engine, before it is loaded."""
        provenance = {
            "sam_model_type": self.model_type,
            "sam_checkpoint_sha256": self.weights.sha256,
            "precision": self.execution.precision,
        }
        return SamIdentity(provenance, self.weights.path.name)

    def load(self) -> SamEngine:
        """Load the weights. Raises UsageError where they cannot be used."""
        model = load_model(self.model_type, self.weights.path)
        torch.backends.cudnn.allow_tf32 = False  # else convolutions in fp32 would round to 10 bits on recent GPUs
        return SamEngine(model, self.device, self.execution)


def engine_settings(args: argparse.Namespace, device: torch.device, fetch: bool = True) -> EngineSettings:
    """Resolve the flags about the weights; with `fetch`, official ones are downloaded once. Raises UsageError."""
    model_type = args.sam_model_type
    if model_type not in MODEL_TYPES:  # argparse lets a default from the environment pass
        raise UsageError(f"{model_type}: no such SAM model type; choose one of {', '.join(MODEL_TYPES)}")
    weights = locate_weights(model_type, args.sam_checkpoint, fetch)
    execution = Execution(args.precision, args.points_per_batch, args.encode_batch, args.compile)
    return EngineSettings(model_type, weights, device, execution)


def load_engine(args: argparse.Namespace) -> tuple[SamEngine, SamIdentity]:
    """Load the engine that the flags ask for, and say what runs where. Raises UsageError."""
    settings = engine_settings(args, resolve_device(args.device))
    weights = settings.weights
    LOG.info("SAM %s: %s (%s) on %s", settings.model_type, weights.path, weights.origin, settings.device)
    return settings.load(), settings.identity
