"""Estimates the memory of a process that computes windows, before anything is loaded."""

from typing import NamedTuple

import torch

import config
from sam.devices import LARGEST_BATCH_BYTES, decoding_threads
from sam.execution import Execution
from sam.mask_generator import MaskParameters, point_bytes
from sam.registry import SAM_VARIANTS

LIBRARY_BYTES = 950 << 20  # of a process that has loaded torch (CUDA build), GDAL and OpenCV; measured on a CPU
WINDOWS_AT_ONCE = 3  # one is read, one computed, one written
WINDOW_BYTES = 22  # per pixel: two 8-bit RGB images and four float32 maps
MASKS_PER_POINT = 3
KEPT_SHARE = 0.25  # of all masks' logits; measured with MobileSAM's official weights: 0.2


class Memory(NamedTuple):
    """Estimated peak memory of a process."""

    host_bytes: int
    device_bytes: int  # 0 if the device is the CPU


def estimate_memory(model_type: str, device_type: str, execution: Execution, largest_window: int) -> Memory:
    """Estimate the memory for computing both stages. `largest_window`: pixels of the largest window."""
    variant = SAM_VARIANTS[model_type]
    with torch.device("meta"):  # shapes without data
        model = variant.build()
    weights = sum(4 * tensor.numel() for tensor in model.state_dict().values())
    batches = max(
        _batch_bytes(variant.encoder_kind().image_bytes(model.image_encoder), execution.encode_batch, device_type),
        _batch_bytes(point_bytes(model), execution.points_per_batch, device_type) * decoding_threads(device_type),
    )
    points = MaskParameters.of(config.STAGE1_SAM_PARAMS).points
    all_logits = points * MASKS_PER_POINT * 4 * (4 * model.prompt_encoder.image_embedding_size[0]) ** 2
    masks = int(KEPT_SHARE * all_logits)
    computing = weights + batches + masks
    base = LIBRARY_BYTES + WINDOWS_AT_ONCE * WINDOW_BYTES * largest_window
    return Memory(base + computing, 0) if device_type == "cpu" else Memory(base + weights, computing)


def _batch_bytes(item_bytes: int, count: int | None, device_type: str) -> int:
    """Return the bytes of a batch. `count`: items per batch; None: the most that fit the device type's limit."""
    return item_bytes * (count or max(LARGEST_BATCH_BYTES[device_type] // item_bytes, 1))
