"""Builds the SAM architectures and loads their weights, as data only."""

import pickle
from functools import partial
from pathlib import Path

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from utils import UsageError, first_line

MODEL_TYPES = ("vit_b", "vit_l", "vit_h", "vit_demo")
MINIMUM_TORCH = "2.10"  # torch.load(weights_only=True) of older ones can be made to run code: CVE-2026-24747


def _build_vit_demo() -> Sam:
    """A SAM of 1.4 M parameters: 512-pixel input, 32 x 32 cells, 96 channels. See demo/README.md."""
    size, channels = 512, 96
    grid = size // 16
    return Sam(
        image_encoder=ImageEncoderViT(
            depth=4,
            embed_dim=128,
            img_size=size,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=4,
            patch_size=16,
            qkv_bias=True,
            use_abs_pos=False,
            use_rel_pos=True,
            global_attn_indexes=(),
            window_size=8,
            out_chans=channels,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=channels, image_embedding_size=(grid, grid), input_image_size=(size, size), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=384, num_heads=4),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=128,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()


def build_model(model_type: str) -> Sam:
    """An untrained SAM of one of the MODEL_TYPES, in evaluation mode, on the CPU."""
    return _build_vit_demo() if model_type == "vit_demo" else sam_model_registry[model_type](checkpoint=None)


def load_model(model_type: str, checkpoint: Path) -> Sam:
    """The SAM of `model_type` with the weights of a state-dict file, on the CPU.

    The file is only ever read as data (`weights_only`), never unpickled freely.

    Raises UsageError, in one line, for a file that is missing, cut off, no state dict, contains code, or belongs to
    another architecture, and for a torch too old to read it safely.
    """
    if torch.torch_version.TorchVersion(torch.__version__) < MINIMUM_TORCH:
        raise UsageError(f"torch {torch.__version__} cannot load weights safely; install torch >= {MINIMUM_TORCH}")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{checkpoint}: SAM weights not found; give their path with --sam-checkpoint") from None
    except pickle.UnpicklingError:
        raise UsageError(
            f"{checkpoint}: not a plain state dict (it holds code or is no PyTorch file); refused"
        ) from None
    except Exception as error:  # damaged bytes make torch's reader fail in any way, also by IndexError, struct.error
        raise UsageError(f"{checkpoint}: damaged or cut off ({first_line(error)}); fetch the file again") from None
    model = build_model(model_type)
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError):
        raise UsageError(
            f"{checkpoint}: these are not {model_type} weights; choose the right one of {', '.join(MODEL_TYPES)} "
            "with --sam-model-type"
        ) from None
    return model
