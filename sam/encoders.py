"""The kinds of image encoders: what the engine makes faster in each, and the memory for one image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sam.attention import fuse_attention


@dataclass(frozen=True)
class EncoderKind:
    """What the engine needs to know of an image encoder."""

    accelerate: Callable[[Any], None]  # replaces parts of an encoder by equivalent, faster ones, in place
    image_bytes: Callable[[Any], int]  # estimates the device memory for encoding one image with an encoder


def _vit_bytes(encoder: Any) -> int:
    grid = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
    channels = encoder.patch_embed.proj.out_channels
    return grid**2 * channels * 4 * 16 + (256 << 20)


def _tiny_vit_bytes(encoder: Any) -> int:
    """The first layer needs most: three copies of its hidden channels, at a quarter of the input's size per side."""
    hidden = encoder.layers[0].blocks[0].conv1.c.out_channels
    return 3 * (encoder.img_size // 4) ** 2 * hidden * 4 + (64 << 20)


PLAIN_VIT = EncoderKind(fuse_attention, _vit_bytes)  # segment_anything's
TINY_VIT = EncoderKind(lambda _: None, _tiny_vit_bytes)
