"""Estimates how long the SAM takes, from its operations and the speed of the device, before anything is loaded."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from segment_anything.modeling import Sam
from torch.utils.flop_counter import FlopCounterMode

import config
from sam.execution import PRECISIONS
from sam.mask_generator import MaskParameters
from sam.registry import SAM_VARIANTS

SIDE = 1024  # of the matrices whose product is timed
LEAST_SECONDS = 0.2  # of timing
# Share of that speed which runs reach, host work included: MobileSAM on two cores of a Xeon, and on an H200, where the
# decoder waits for kernels to be launched (docs/benchmarks.md).
EFFICIENCY = {"cpu": 0.4, "cuda": 0.15}


class Operations(NamedTuple):
    """Floating-point operations of a SAM."""

    per_image: float  # to encode an image
    per_point: float  # to decode the masks of a point

    @property
    def per_masks(self) -> float:
        """The operations for the masks of an image, with the points of config.py."""
        return MaskParameters.of(config.STAGE1_SAM_PARAMS).points * self.per_point


def count_operations(model_type: str) -> Operations:
    """Count the operations of a model type, without its weights."""
    with torch.device("meta"):  # shapes without data
        model = SAM_VARIANTS[model_type].build()
        side = model.image_encoder.img_size
        per_image = _count(lambda: model.image_encoder(torch.empty(1, 3, side, side)))
        return Operations(per_image, _count(lambda: _decode_point(model)))


def _decode_point(model: Sam) -> None:
    channels, size = model.prompt_encoder.embed_dim, model.prompt_encoder.image_embedding_size
    image = torch.empty(1, channels, *size)
    model.mask_decoder(
        image_embeddings=image,
        image_pe=image,
        sparse_prompt_embeddings=torch.empty(1, 2, channels),
        dense_prompt_embeddings=image,
        multimask_output=True,
    )


def _count(work: Callable[[], object]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def measure_speed(device: torch.device, precision: str) -> float:
    """Return the operations per second that a product of matrices reaches on a device."""
    matrix = torch.ones(SIDE, SIDE, device=device, dtype=getattr(torch, PRECISIONS[precision]))

    def multiply() -> None:
        float((matrix @ matrix)[0, 0])  # waits for the device

    multiply()  # loads the device's libraries
    products, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < LEAST_SECONDS:
        multiply()
        products += 1
    return products * 2 * SIDE**3 / seconds


def estimate_seconds(model_type: str, device: torch.device, precision: str, encoded: int, masked: int) -> float:
    """Estimate the seconds to encode images of windows, and to generate the masks of some of them."""
    operations = count_operations(model_type)
    work = encoded * operations.per_image + masked * operations.per_masks
    return work / (measure_speed(device, precision) * EFFICIENCY[device.type])
