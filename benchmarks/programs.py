"""The two programs to compare, each of which runs both stages on one window."""

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

import config
from benchmarks import reference
from benchmarks.blobs import blob_masks, use_blobs
from benchmarks.measure import Measurement, measure
from demo.scenes import SyntheticEvent
from pipeline.filtered_map import filter_change_map
from rasters.raster import MemoryRaster
from sam.engine import SamEngine
from sam.execution import Execution
from sam.mask_generator import MaskParameters
from sam.models import load_model
from sam.prompt_decoder import DecodedMasks, ImageSide, PromptDecoder
from sam.registry import SAM_VARIANTS
from sam.weights import locate_weights
from stage1_analysis import change_map
from stage2_analysis import anomaly_map
from utils import Window

SEED = 14  # of the scene, the random weights and the blobs
TOLERANCE = 1e-4  # largest deviation of equal scores
STAGE1_LIMITS = (config.STAGE1_MIN_MASK_PIXELS, config.MAX_REGION_FRACTION)
STAGE2_LIMITS = (config.STAGE2_MIN_MASK_PIXELS, config.MAX_REGION_FRACTION)


class Weights(NamedTuple):
    """Architecture and weights of the SAM to run."""

    model_type: str
    checkpoint: Path | None  # None: seeded random weights, whose masks are replaced by blobs

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Weights":
        """Return what the flags of `add_weights_arguments` choose; missing official weights are downloaded."""
        return cls(args.model, None if args.random else locate_weights(args.model, args.checkpoint).path)

    @property
    def name(self) -> str:
        """Text for a row of results."""
        return "random, blobs" if self.checkpoint is None else self.checkpoint.name


class Outcome(NamedTuple):
    """Results and measurements of a program."""

    change_map: np.ndarray
    anomaly_map: np.ndarray
    masks: int
    stage1: Measurement
    stage2: Measurement


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the device and the SAM."""
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--model", choices=SAM_VARIANTS, default="vit_t", help="architecture (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="weights (default: the model's official ones)")
    parser.add_argument(
        "--random",
        action="store_true",
        help="seeded random weights at their full cost, their masks replaced by blobs (default: the checkpoint)",
    )


def load(weights: Weights) -> Sam:
    """Load the model on the CPU, and let a GPU compute its convolutions in fp32, as the program does."""
    torch.backends.cudnn.allow_tf32 = False
    if weights.checkpoint is not None:
        return load_model(weights.model_type, weights.checkpoint)
    torch.manual_seed(SEED)
    return SAM_VARIANTS[weights.model_type].build()


def run_reference(weights: Weights, device: str, event: SyntheticEvent, changes: Path) -> Outcome:
    """Run both stages literally. Writes the change map from which both programs start stage 2, unless it exists."""
    model = load(weights).to(device)
    parameters = config.STAGE1_SAM_PARAMS | {"points_per_batch": 64}
    with blobs_for(weights, model):
        (stage1, masks), took1 = measure(
            device,
            lambda: reference.stage1_window(model, event.historical[-1], event.monitor, parameters, *STAGE1_LIMITS),
        )
    if not changes.exists():
        np.save(changes, stage1)
    filtered = reference.filter_change_map(np.load(changes), config.STAGE2_CHANGE_MAP_QUANTILE)
    stage2, took2 = measure(
        device, lambda: reference.stage2_window(model, event.historical, event.monitor, filtered, *STAGE2_LIMITS)
    )
    return Outcome(stage1, stage2, masks, took1, took2)


@contextmanager
def blobs_for(weights: Weights, model: Sam) -> Iterator[None]:
    """Replace the masks of random weights with blobs within the block."""
    if weights.checkpoint is None:
        with use_blobs(model, SEED):
            yield
    else:
        yield


def own_engine(weights: Weights, device: str, execution: Execution | None = None) -> SamEngine:
    """Return the project's engine. With random weights, its decoder runs at its full cost and gives blobs."""
    model = load(weights)
    engine = SamEngine(model, torch.device(device), execution, SAM_VARIANTS[weights.model_type].encoder_kind())
    if weights.checkpoint is None:
        engine.generator.decoder = BlobDecoder(model, compiled=execution is not None and execution.compile)
    return engine


def run_ours(weights: Weights, device: str, event: SyntheticEvent, changes: Path, execution: Execution) -> Outcome:
    """Run both stages with the project's engine."""
    engine = own_engine(weights, device, execution)

    def stage1() -> tuple[np.ndarray, int]:
        images = (event.historical[-1], event.monitor)
        features = engine.encode([engine.scale(image) for image in images])
        pending = [
            engine.generator.generate(image, of_image, MaskParameters.of(config.STAGE1_SAM_PARAMS))
            for image, of_image in zip(images, features, strict=True)
        ]
        masks = [some.collect() for some in pending]
        changed = change_map(features[0], features[1], masks[0], masks[1], *STAGE1_LIMITS)
        return changed, sum(map(len, masks))

    def stage2() -> np.ndarray:
        *historical, monitor = engine.encode([engine.scale(image) for image in (*event.historical, event.monitor)])
        return anomaly_map(filtered, historical, monitor, *STAGE2_LIMITS)

    (changed, masks), took1 = measure(device, stage1)
    if not changes.exists():
        np.save(changes, changed)
    whole = Window(0, 0, changed.shape[1], changed.shape[0])
    filtered = filter_change_map(MemoryRaster(np.load(changes)), config.STAGE2_CHANGE_MAP_QUANTILE).read(whole)
    anomalies, took2 = measure(device, stage2)
    return Outcome(changed, anomalies, masks, took1, took2)


class BlobDecoder(PromptDecoder):
    """The engine's decoder at its full cost, with blobs instead of its masks."""

    def __init__(self, model: Sam, compiled: bool = False) -> None:
        super().__init__(model.prompt_encoder, model.mask_decoder, compiled)
        self._encoder_size = model.image_encoder.img_size
        self._drawn = threading.local()  # `predicted_iou`: of the points that this thread decodes
        model.mask_decoder.iou_prediction_head.register_forward_hook(self._replace_iou)

    def decode(self, image: ImageSide, points: Tensor, iou_threshold: float) -> DecodedMasks:
        """Return the points' blobs; upscale as many masks as have a predicted IoU above the threshold."""
        logits, self._drawn.predicted_iou = blob_masks(points, self._encoder_size, SEED)
        try:
            decoded = super().decode(image, points, iou_threshold)
            return decoded._replace(logits=logits[self._drawn.predicted_iou > iou_threshold])
        finally:
            del self._drawn.predicted_iou

    def _replace_iou(self, _module: object, _inputs: object, output: Tensor) -> Tensor:
        if not hasattr(self._drawn, "predicted_iou"):  # another decoder of this model
            return output
        predicted_iou = self._drawn.predicted_iou.to(output.dtype).float()  # rounded like the decoder's own
        self._drawn.predicted_iou = predicted_iou
        # A compiled decoder fills up small batches: only the first points are asked for.
        replaced = output.clone()
        replaced[: len(predicted_iou), 1:] = predicted_iou
        return replaced
