"""Estimates what memory a process takes that computes windows, before anything is loaded."""

from typing import NamedTuple

import torch

import config
from sam.devices import LARGEST_BATCH_BYTES
from sam.engine import encoder_bytes, point_bytes
from sam.execution import Execution
from sam.registry import SAM_VARIANTS

LIBRARY_BYTES = 850 << 20  # of a process that has loaded torch (a CUDA build), GDAL and OpenCV, as measured on a CPU
WINDOWS_AT_ONCE = 3  # one is read, one computed, one written
WINDOW_BYTES = 22  # a pixel: two images and four maps in float32
MASKS_PER_POINT = 3


class Memory(NamedTuple):
    """What a process takes at most, roughly."""

    host_bytes: int
    device_bytes: int  # 0 where the host's memory is the device's


def estimate_memory(model_type: str, device_type: str, execution: Execution, largest_window: int) -> Memory:
    """Estimate what computing both stages takes. `largest_window`: its pixels."""
    with torch.device("meta"):  # shapes without numbers
        model = SAM_VARIANTS[model_type].build()
    weights = sum(4 * tensor.numel() for tensor in model.state_dict().values())
    batches = max(
        _batch_bytes(encoder_bytes(model), execution.encode_batch, device_type),
        _batch_bytes(point_bytes(model), execution.points_per_batch, device_type),
    )
    points = config.STAGE1_SAM_PARAMS["points_per_side"] ** 2
    masks = points * MASKS_PER_POINT * 4 * (4 * model.prompt_encoder.image_embedding_size[0]) ** 2  # low-resolution
    computing = weights + batches + masks
    waiting = LIBRARY_BYTES + WINDOWS_AT_ONCE * WINDOW_BYTES * largest_window
    return Memory(waiting + computing, 0) if device_type == "cpu" else Memory(waiting + weights, computing)


def _batch_bytes(item_bytes: int, count: int | None, device_type: str) -> int:
    """`count`: items in a batch; None: as many as the device takes at most."""
    return item_bytes * (count or max(LARGEST_BATCH_BYTES[device_type] // item_bytes, 1))
