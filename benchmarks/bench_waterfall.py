"""Times stage 1 of one window with our techniques added one by one to the literal method; needs no GDAL.

    python -m benchmarks.bench_waterfall --device cpu --size 2048

Rows are appended to a CSV: seconds, how many times faster than the literal method, and the largest deviation from it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor

import config
from benchmarks import reference
from benchmarks.measure import append_rows, describe_environment, measure
from benchmarks.programs import (
    SEED,
    STAGE1_LIMITS,
    TOLERANCE,
    Weights,
    add_weights_arguments,
    blobs_for,
    load,
    own_engine,
)
from demo.scenes import make_event
from sam.engine import SamEngine
from sam.features import WindowFeatures
from sam.mask_generator import MaskParameters
from sam.masks import Mask
from sam.prompt_decoder import DecodedMasks, PromptDecoder
from stage1_analysis import change_map

RESULTS = Path(__file__).parent / "results" / "waterfall.csv"
CATEGORY = 4  # of the scene: a fire
STOCK_PARAMETERS = config.STAGE1_SAM_PARAMS | {"points_per_batch": 64}


class Images(NamedTuple):
    """The two images of the window, (H, W, 3) uint8 RGB."""

    reference: np.ndarray
    monitor: np.ndarray


class EncodedPredictor(SamPredictor):
    """A predictor that encodes its image once and keeps the features."""

    def __init__(self, model: Sam, image: np.ndarray) -> None:
        super().__init__(model)
        super().set_image(image)

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Do nothing: the mask generator passes the image that is already encoded."""

    def reset_image(self) -> None:
        """Do nothing: the features are kept."""


class StockDecoder(PromptDecoder):
    """SAM's own decoder in place of ours: repeats the image for every prompt and filters at the end."""

    def __init__(self, model: Sam) -> None:
        super().__init__(model.prompt_encoder, model.mask_decoder)
        self._model = model

    def image_side(self, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Return the embedding; nothing else is shared."""
        return embedding

    def decode(self, image: Tensor, points: Tensor, iou_threshold: float) -> DecodedMasks:  # type: ignore[override]
        """Compute all masks of all points, then filter them."""
        labels = torch.ones((len(points), 1), dtype=torch.int, device=points.device)
        sparse, dense = self._model.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        logits, predicted_iou = self._model.mask_decoder(
            image_embeddings=image[None],
            image_pe=self._model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        kept = predicted_iou > iou_threshold
        return DecodedMasks(logits[kept], predicted_iou[kept], kept.nonzero()[:, 0])


def stock_masks(predictor: EncodedPredictor, image: np.ndarray) -> list[dict[str, Any]]:
    """Return the masks of SamAutomaticMaskGenerator for an encoded image."""
    generator = SamAutomaticMaskGenerator(predictor.model, **STOCK_PARAMETERS)
    generator.predictor = predictor
    return generator.generate(image)


@torch.no_grad()
def encoded_once(model: Sam, images: Images) -> np.ndarray:
    """Compute the change map literally, but without the second encoder pass of each image."""
    predictors = [EncodedPredictor(model, image) for image in images]
    features = [reference.upsampled_features(predictor) for predictor in predictors]
    painted = [
        reference.paint_changes(stock_masks(predictor, image), features[0], features[1], *STAGE1_LIMITS)
        for predictor, image in zip(predictors, images, strict=True)
    ]
    return np.maximum(*painted)


def weighted_cells(model: Sam, images: Images) -> np.ndarray:
    """Like `encoded_once`, but with averages over weighted cells instead of features at the window's size."""
    predictors = [EncodedPredictor(model, image) for image in images]
    masks = [
        [Mask.of(found["segmentation"]) for found in stock_masks(predictor, image)]
        for predictor, image in zip(predictors, images, strict=True)
    ]
    features = [window_features(predictor) for predictor in predictors]
    return change_map(features[0], features[1], masks[0], masks[1], *STAGE1_LIMITS)


def window_features(predictor: EncodedPredictor) -> WindowFeatures:
    """Return a predictor's features in the engine's format."""
    size = predictor.model.image_encoder.img_size
    return WindowFeatures.from_embedding(predictor.features, predictor.original_size, predictor.input_size, size)


def own_masks(engine: SamEngine, features: list[WindowFeatures], images: Images) -> np.ndarray:
    """Like `weighted_cells`, but with the masks of the engine and its current decoder."""
    masks = [
        engine.generator.generate(image, of_image, MaskParameters.of(config.STAGE1_SAM_PARAMS)).collect()
        for image, of_image in zip(images, features, strict=True)
    ]
    return change_map(features[0], features[1], masks[0], masks[1], *STAGE1_LIMITS)


def techniques(weights: Weights, stock_model: Sam, images: Images) -> dict[str, Callable[[], np.ndarray]]:
    """Return variants of stage 1 of the window, each with one more technique."""
    engine = own_engine(weights, str(stock_model.device))
    own_decoder = engine.generator.decoder

    def with_stock_encoder(decoder: PromptDecoder) -> np.ndarray:
        engine.generator.decoder = decoder
        return own_masks(engine, [window_features(EncodedPredictor(stock_model, image)) for image in images], images)

    def with_everything() -> np.ndarray:
        engine.generator.decoder = own_decoder
        return own_masks(engine, engine.encode([engine.scale(image) for image in images]), images)

    return {
        "literal method": lambda: reference.stage1_window(stock_model, *images, STOCK_PARAMETERS, *STAGE1_LIMITS)[0],
        "images encoded once": lambda: encoded_once(stock_model, images),
        "weighted cells": lambda: weighted_cells(stock_model, images),
        "masks measured at low resolution, points in threads": lambda: with_stock_encoder(StockDecoder(stock_model)),
        "image side computed once": lambda: with_stock_encoder(own_decoder),
        "own encoder": with_everything,
    }


def main() -> None:
    """Run, print and append to the results."""
    parser = argparse.ArgumentParser(description="Time stage 1 with our techniques added one by one.")
    add_weights_arguments(parser)
    parser.add_argument("--size", type=int, default=2048, help="side of the window, pixels (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    args = parser.parse_args()
    weights = Weights.of(args)
    event = make_event(SEED, CATEGORY, args.size, 1)
    images = Images(event.historical[-1], event.monitor)
    described = describe_environment(args.device) | {
        "model": f"{args.model}, {weights.name}",
        "window": str(args.size),
    }
    stock_model = load(weights).to(args.device)
    rows: list[dict[str, str]] = []
    with blobs_for(weights, stock_model):
        for name, work in techniques(weights, stock_model, images).items():
            changes, took = measure(args.device, work)
            if not rows:
                literal, literal_seconds = changes, took.seconds
            row = {
                "technique added": name,
                "seconds": f"{took.seconds:.2f}",
                "ratio": f"{literal_seconds / took.seconds:.2f}",
                "host MiB": f"{took.host_bytes / 2**20:.0f}",
                "device MiB": f"{took.device_bytes / 2**20:.0f}",
                "largest deviation": f"{np.abs(changes - literal).max():.1e}",
                "share within 1e-4": f"{np.mean(np.abs(changes - literal) <= TOLERANCE):.7f}",
            }
            print("  ".join(f"{column}: {value}" for column, value in row.items()), flush=True)
            rows.append(described | row)
    append_rows(args.results, rows)


if __name__ == "__main__":
    main()
