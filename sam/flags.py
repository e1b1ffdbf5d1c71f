"""Command-line flags for the SAM: device, weights and execution. Imports nothing heavy."""

import argparse
from pathlib import Path
from typing import NamedTuple

import config
from cli.flags import positive_int
from sam.execution import PRECISIONS
from sam.registry import SAM_VARIANTS


class SamFlags(NamedTuple):
    """The values of the flags for the SAM."""

    device: str | None  # torch device; None: the default one
    checkpoint: Path | None  # weights file; None: the default one of the model type
    model_type: str
    precision: str
    points_per_batch: int | None  # None: from the device's memory
    encode_batch: int | None  # None: from the device's memory
    compile: bool

    @classmethod
    def of(cls, args: argparse.Namespace) -> "SamFlags":
        """Return the values of the flags of `add_sam_arguments`."""
        return cls(
            args.device,
            args.sam_checkpoint,
            args.sam_model_type,
            args.precision,
            args.points_per_batch,
            args.encode_batch,
            args.compile,
        )


def add_sam_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the device, the weights and the execution of the engine."""
    parser.add_argument(
        "--device",
        help=f"torch device (default: {config.DEFAULT_DEVICE}; cpu, with a warning, if there is no GPU)",
    )
    parser.add_argument(
        "--sam-checkpoint",
        type=Path,
        help=f"SAM weights (default: {config.SAM_CHECKPOINT} for {config.SAM_MODEL_TYPE}, "
        f"else the model's own file in {config.WEIGHTS_DIR} or, for vit_demo, in tests/toy_sam/)",
    )
    parser.add_argument(
        "--sam-model-type",
        choices=SAM_VARIANTS,
        default=config.SAM_MODEL_TYPE,
        help="architecture of the weights; vit_t is MobileSAM, vit_demo a small SAM for tests (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="fp32",
        help="floating-point precision of the network; bf16 and fp16 are faster on a GPU and change the maps, see "
        "docs/benchmarks.md (default: %(default)s)",
    )
    parser.add_argument(
        "--points-per-batch",
        type=positive_int,
        help="points that SAM decodes at once, on a CPU in each thread (default: from the device's memory)",
    )
    parser.add_argument(
        "--encode-batch",
        type=positive_int,
        help="images that SAM encodes at once (default: from the device's memory)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile encoder and mask decoder with torch.compile: minutes at the first start, needs a C++ compiler "
        "(default: not compiled)",
    )
