"""Encodes windows with SAM, each image once.

The contract is *encode once*: only `encode` runs the image encoder; the mask generator takes its result.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from sam.compilation import compile_once
from sam.devices import Batches, autocast, batch_size, release_freed_memory
from sam.encoders import PLAIN_VIT, EncoderKind
from sam.execution import Execution
from sam.features import WindowFeatures
from sam.mask_generator import MaskGenerator, ignore_points
from sam.scaling import scale_longest_side
from utils import EventError


class ScaledImage(NamedTuple):
    """An image of a window, scaled for the encoder."""

    pixels: np.ndarray  # (h, w, 3) uint8 RGB; the longer side has the encoder's input size
    window_size: tuple[int, int]  # height and width before scaling


class SamEngine:
    """One SAM on one device: encodes windows; its `generator` makes their masks. As a context manager, ends threads."""

    def __init__(
        self,
        model: Sam,
        device: torch.device,
        execution: Execution | None = None,
        kind: EncoderKind = PLAIN_VIT,
        points_done: Callable[[int], object] = ignore_points,
    ) -> None:
        """Move `model` to the device and replace parts of its encoder by equivalent, faster ones.

        `kind`: of the model's encoder, as its row of the registry says. `points_done`: called with the number of
        points of a window whose masks were decoded, after each batch.
        """
        execution = execution or Execution()
        self.device = device
        self._model = model.to(device)
        kind.accelerate(model.image_encoder)
        for module in model.image_encoder.modules():
            if isinstance(module, LayerNorm2d):  # squares channels, beyond the range of fp16
                module.register_forward_pre_hook(_in_single_precision)
        self._encoder = compile_once(model.image_encoder, device) if execution.compile else model.image_encoder
        self._resize = ResizeLongestSide(model.image_encoder.img_size)
        self._precision = execution.precision
        encode_batch = execution.encode_batch or batch_size(device, kind.image_bytes(model.image_encoder))
        self._encode_batches = Batches(encode_batch, "--encode-batch")
        self.generator = MaskGenerator(
            self._model, device, execution, lambda crop: self.encode([self.scale(crop)])[0], points_done
        )

    def __enter__(self) -> "SamEngine":
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the mask generator's threads."""
        self.generator.close()

    def scale(self, image: np.ndarray) -> ScaledImage:
        """Scale an image of a window, (H, W, 3) uint8 RGB, as SAM does. Runs on the CPU, in any thread."""
        return ScaledImage(scale_longest_side(image, self._resize.target_length), image.shape[:2])

    @torch.no_grad()
    def encode(self, images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        """Encode images of windows of one size; one result per image.

        Raises EventError if not even one image fits, and if a feature is not finite (beyond the range of fp16).
        """
        return [features for batch in self._encode_batches.run(self._encode_batch, images) for features in batch]

    @torch.no_grad()
    def without_affine(self, features: WindowFeatures) -> WindowFeatures:
        """Return features without the scale and shift of each channel that end the encoder, as AnyChange uses them."""
        norm = self._model.image_encoder.neck[-1]
        embedding = (features.embedding - norm.bias[:, None, None]) / norm.weight[:, None, None]
        return replace(features, embedding=embedding)

    def _encode_batch(self, images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        release_freed_memory(self.device)
        pixels = torch.from_numpy(np.stack([image.pixels for image in images])).to(self.device)
        with autocast(self.device, self._precision):
            embeddings = self._encoder(self._model.preprocess(pixels.permute(0, 3, 1, 2))).float()
        if not embeddings.isfinite().all():
            raise EventError(
                f"the SAM's features are not finite ({self._precision}); use --precision fp32, or other weights"
            )
        size = self._model.image_encoder.img_size
        return [
            WindowFeatures.from_embedding(embedding[None], image.window_size, image.pixels.shape[:2], size)
            for embedding, image in zip(embeddings, images, strict=True)
        ]


def _in_single_precision(module: LayerNorm2d, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)
