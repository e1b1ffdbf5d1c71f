"""Loads SAM weights without running code from their file."""

import pickle
from pathlib import Path

import torch
from segment_anything.modeling import Sam

from sam.registry import SAM_VARIANTS
from utils import UsageError, first_line

MINIMUM_TORCH = "2.10"  # in older versions torch.load(weights_only=True) can be made to run code: CVE-2026-24747


def load_model(model_type: str, checkpoint: Path) -> Sam:
    """Build the SAM of `model_type` with the weights of a state-dict file, on the CPU.

    The file is read with `weights_only`: code in it is never run.

    Raises UsageError, with a one-line message, if the file is missing, cut off, not a state dict, contains code or
    belongs to another architecture, and if torch is too old to read it safely.
    """
    if torch.torch_version.TorchVersion(torch.__version__) < MINIMUM_TORCH:
        raise UsageError(f"torch {torch.__version__} cannot load weights safely; install torch >= {MINIMUM_TORCH}")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{checkpoint}: SAM weights not found; give their path with --sam-checkpoint") from None
    except pickle.UnpicklingError:
        raise UsageError(
            f"{checkpoint}: not a plain state dict (it contains code or is not a PyTorch file); refused"
        ) from None
    except Exception as error:  # a damaged file can raise any error, such as IndexError and struct.error
        raise UsageError(f"{checkpoint}: damaged or cut off ({first_line(error)}); download the file again") from None
    variant = SAM_VARIANTS[model_type]
    model = variant.build()
    try:
        used = {name: weights for name, weights in state.items() if not name.startswith(variant.unused_weights)}
        model.load_state_dict(used, strict=True)
    except (RuntimeError, TypeError, AttributeError):
        raise UsageError(
            f"{checkpoint}: these are not {model_type} weights; choose the right one of {', '.join(SAM_VARIANTS)} "
            "with --sam-model-type"
        ) from None
    return model
