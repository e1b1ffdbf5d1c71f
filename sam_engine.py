"""Loads SAM, encodes a window once and generates its masks; the only module that touches segment_anything.

The contract is *encode once*: `encode` runs the image encoder, everything else takes what it returned.
"""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

import config
from regions import WindowFeatures
from sam_weights import Weights, locate_weights
from utils import LOG, UsageError

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
        raise UsageError(f"{checkpoint}: damaged or cut off ({_first_line(error)}); fetch the file again") from None
    model = build_model(model_type)
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError):
        raise UsageError(
            f"{checkpoint}: these are not {model_type} weights; choose the right one of {', '.join(MODEL_TYPES)} "
            "with --sam-model-type"
        ) from None
    return model


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class _EncodedPredictor(SamPredictor):
    """A predictor that takes the whole window's features as they were encoded, instead of encoding it again."""

    def __init__(self, model: Sam, window: WindowFeatures) -> None:
        super().__init__(model)
        self._window = window

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Called by the mask generator for the window and, with `crop_n_layers` > 0, for each crop of it."""
        if image.shape[:2] != self._window.window_size:
            super().set_image(image, image_format)
            return
        self.original_size = self._window.window_size
        self.input_size = self._window.input_size
        self.features = self._window.embedding
        self.is_image_set = True


class SamEngine:
    """One SAM on one device: encodes windows and generates their masks."""

    def __init__(self, model: Sam, device: torch.device, provenance: dict[str, str]) -> None:
        self.device = device
        self.provenance = provenance  # model type and checksum of the weights, for the maps made with them
        self._model = model.to(device)

    @torch.no_grad()
    def encode(self, image: np.ndarray) -> WindowFeatures:
        """Run the image encoder on a window, (H, W, 3) uint8 RGB."""
        predictor = SamPredictor(self._model)
        predictor.set_image(image)
        return WindowFeatures.from_embedding(
            predictor.features, image.shape[:2], predictor.input_size, self._model.image_encoder.img_size
        )

    def generate_masks(
        self, image: np.ndarray, features: WindowFeatures, parameters: dict[str, Any]
    ) -> list[np.ndarray]:
        """The automatic masks of a window, in the generator's order, possibly none.

        `image`: (H, W, 3) uint8 RGB, of which `features` are the encoding. `parameters`: keyword arguments of
        segment_anything's SamAutomaticMaskGenerator. Returns arrays (H, W) of bool, which may overlap. Raises
        UsageError for parameters that it does not take.
        """
        try:
            generator = SamAutomaticMaskGenerator(self._model, **parameters)
        except (TypeError, AssertionError) as error:
            raise UsageError(f"SAM does not take these mask parameters ({_first_line(error)}): {parameters}") from None
        generator.predictor = _EncodedPredictor(self._model, features)
        return [annotation["segmentation"] for annotation in generator.generate(image)]


def resolve_device(name: str | None) -> torch.device:
    """The torch device that the user named, or the default one.

    Without a GPU the default falls back to the CPU with a warning. Raises UsageError for a device that was named (by
    flag or environment) and is not there.
    """
    named = name or ("DEFAULT_DEVICE" in config.OVERRIDDEN and config.DEFAULT_DEVICE) or None
    wanted = named or config.DEFAULT_DEVICE
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UsageError(f"--device {wanted}: no such device; use cuda:0 (or another number), or cpu") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"--device {wanted}: only cuda and cpu are supported")
    if 0 <= (device.index or 0) < torch.cuda.device_count():  # torch reads cuda:1000 as a negative index
        return device
    if named is None:
        LOG.warning("no GPU for %s: running on the CPU, which takes many times longer", device)
        return torch.device("cpu")
    raise UsageError(f"--device {wanted}: not there, torch sees {torch.cuda.device_count()} GPU(s); use --device cpu")


def load_engine(model_type: str, checkpoint: Path | None, device_name: str | None) -> SamEngine:
    """Find the weights (downloading official ones once), load them, and say what runs where. Raises UsageError."""
    if model_type not in MODEL_TYPES:  # argparse lets a default from the environment pass
        raise UsageError(f"{model_type}: no such SAM model type; choose one of {', '.join(MODEL_TYPES)}")
    device = resolve_device(device_name)
    weights: Weights = locate_weights(model_type, checkpoint)
    model = load_model(model_type, weights.path)
    LOG.info("SAM %s: %s (%s) on %s", model_type, weights.path, weights.origin, device)
    return SamEngine(model, device, {"sam_model_type": model_type, "sam_checkpoint_sha256": weights.sha256})
