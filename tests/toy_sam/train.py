"""Trains the small SAM of the tests: `python -m tests.toy_sam.train`, an hour on 2 CPU cores, from a fixed seed.

Masks are trained as in SAM (Kirillov et al., 2023, section A): a point on an object, three masks, focal and dice loss
(20 : 1) on the best of them, and a regression of their IoU. In addition, a *cosine* classifier of the surfaces is
trained on the encoder's features. It makes the features of a surface similar under any light, so that the published
thresholds on 1 - cosine suit this model too.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from segment_anything.modeling import Sam
from tqdm import tqdm

import config
from demo import scenes
from sam.vit_demo import build_vit_demo

SCENE_SIZE, INPUT_SIZE = 1024, 512  # scenes are drawn at the first size and reduced to the second
IMAGES, POINTS = 2, 16  # per training step
MIN_OBJECT_PIXELS = 150
OTHER_MASKS_WEIGHT = 0.05  # of the loss of all three masks, so that all of them are trained
SURFACE_WEIGHT, SURFACE_TEMPERATURE = 0.5, 16.0
PEAK_LEARNING_RATE, WARM_UP_STEPS = 1e-3, 200
VALIDATION_SEED = 1_000_000  # seeds from here on are not used for training


class Sample(NamedTuple):
    """One scene at the encoder's input size."""

    image: np.ndarray  # (512, 512, 3) uint8
    instances: np.ndarray  # (512, 512) uint16
    surfaces: np.ndarray  # (512, 512) uint8


class Batch(NamedTuple):
    """The input of one training step."""

    images: torch.Tensor  # (B, 3, 512, 512) float32, 0..255
    points: torch.Tensor  # (B, P, 2) float32: x, y
    masks: torch.Tensor  # (B, P, 128, 128) float32: share of each low-resolution pixel inside the object
    surfaces: torch.Tensor  # (B, S, 32, 32) float32: share of each surface in each feature cell


class Losses(NamedTuple):
    """The losses of one batch; `total` is minimized, the others are only reported."""

    total: torch.Tensor
    best_iou: float  # mean IoU of the best of three masks
    surface_accuracy: float


def draw_sample(seed: int) -> Sample:
    """Draw the scene of a seed, with up to two disasters, on a random date of the crop cycle."""
    rng = np.random.default_rng(seed)
    patches = scenes.build_world(rng, SCENE_SIZE, rng.uniform(1.5, 2.3))
    for _ in range(rng.integers(0, 3)):
        patches += scenes.disaster(rng, SCENE_SIZE, int(rng.integers(1, 6)))
    painting = scenes.paint(patches, SCENE_SIZE, int(rng.integers(0, 6)))
    image = scenes.render(rng, painting, noise=rng.uniform(1, 5))
    reduced = cv2.resize(image, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
    return Sample(reduced, painting.instances[1::2, 1::2].astype(np.uint16), painting.surfaces[1::2, 1::2])


def draw_samples(first_seed: int, count: int) -> list[Sample]:
    """Draw the samples of consecutive seeds, with one process per core."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(draw_sample, range(first_seed, first_seed + count), chunksize=8)
        return list(tqdm(drawn, "scenes", count, unit="scene"))


def _augmented(rng: Generator, sample: Sample) -> Sample:
    turns, mirror = int(rng.integers(4)), rng.random() < 0.5
    turned = (np.rot90(array, turns) for array in sample)
    image, instances, surfaces = (array[:, ::-1] if mirror else array for array in turned)
    light = (image.astype(np.float32) - 128) * rng.uniform(0.85, 1.15) + 128 + rng.normal(0, 8) + rng.normal(0, 3, 3)
    return Sample(np.clip(light, 0, 255), np.ascontiguousarray(instances), np.ascontiguousarray(surfaces))


def _points_on_objects(rng: Generator, instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose objects with weights sqrt(area); return points (P, 2) on them, and their masks (P, H, W)."""
    numbers, areas = np.unique(instances, return_counts=True)
    numbers, areas = numbers[areas > MIN_OBJECT_PIXELS], areas[areas > MIN_OBJECT_PIXELS]
    chance = np.sqrt(areas) / np.sqrt(areas).sum()
    masks = np.stack([instances == number for number in rng.choice(numbers, POINTS, p=chance)])
    places = [rng.choice(np.argwhere(mask)) for mask in masks]
    return np.array(places)[:, ::-1] + 0.5, masks


def make_batch(rng: Generator, samples: list[Sample]) -> Batch:
    """Return random samples with random rotation, mirroring and light, and with points on their objects."""
    grid = INPUT_SIZE // 16
    images, points, masks, surfaces = [], [], [], []
    for index in rng.integers(len(samples), size=IMAGES):
        sample = _augmented(rng, samples[index])
        places, objects = _points_on_objects(rng, sample.instances)
        images.append(torch.from_numpy(sample.image.astype(np.float32)).permute(2, 0, 1))
        points.append(torch.from_numpy(places.astype(np.float32)))
        masks.append(F.adaptive_avg_pool2d(torch.from_numpy(objects).float(), 4 * grid))
        one_hot = F.one_hot(torch.from_numpy(sample.surfaces).long(), len(scenes.SURFACES))
        surfaces.append(F.adaptive_avg_pool2d(one_hot.permute(2, 0, 1).float(), grid))
    return Batch(torch.stack(images), torch.stack(points), torch.stack(masks), torch.stack(surfaces))


def _mask_loss(
    model: Sam, features: torch.Tensor, points: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Return SAM's mask and IoU loss for the points of one image, and the mean IoU of the best masks."""
    sparse, dense = model.prompt_encoder(
        points=(points[:, None], torch.ones(len(points), 1, dtype=torch.int)), boxes=None, masks=None
    )
    logits, predicted_iou = model.mask_decoder(
        image_embeddings=features,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    target = target[:, None].expand_as(logits)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (entropy * (1 - torch.exp(-entropy)) ** 2).flatten(2).mean(-1)
    overlap = (probability * target).flatten(2).sum(-1)
    dice = 1 - (2 * overlap + 1) / (probability.flatten(2).sum(-1) + target.flatten(2).sum(-1) + 1)
    loss = 20 * focal + dice
    best = loss.argmin(1, keepdim=True)
    with torch.no_grad():
        found, true = logits > 0, target > 0.5
        iou = (found & true).flatten(2).sum(-1) / (found | true).flatten(2).sum(-1).clamp(min=1)
    total = loss.gather(1, best).mean() + OTHER_MASKS_WEIGHT * loss.mean() + F.mse_loss(predicted_iou, iou)
    return total, iou.gather(1, best).mean().item()


def losses(model: Sam, surface_head: torch.nn.Linear, batch: Batch) -> Losses:
    """Compute the losses of a batch."""
    features = model.image_encoder(model.preprocess(batch.images))
    cosine = F.normalize(features, dim=1).permute(0, 2, 3, 1) @ F.normalize(surface_head.weight, dim=1).T
    share = batch.surfaces.permute(0, 2, 3, 1)
    surface_loss = -(share * (SURFACE_TEMPERATURE * cosine).log_softmax(-1)).sum(-1).mean()
    accuracy = (cosine.argmax(-1) == share.argmax(-1)).float().mean().item()
    by_image = [
        _mask_loss(model, features[i : i + 1], batch.points[i], batch.masks[i]) for i in range(len(batch.images))
    ]
    mask_loss = torch.stack([loss for loss, _ in by_image]).mean()
    return Losses(SURFACE_WEIGHT * surface_loss + mask_loss, float(np.mean([iou for _, iou in by_image])), accuracy)


def train(model: Sam, surface_head: torch.nn.Linear, samples: list[Sample], steps: int, rng: Generator) -> None:
    """Train with AdamW, warm-up, cosine decay, and gradients clipped to norm 1."""
    parameters = [*model.parameters(), *surface_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LEARNING_RATE, weight_decay=0.01)

    def schedule(step: int) -> float:
        return min(1, (step + 1) / WARM_UP_STEPS) * (0.5 * (1 + np.cos(np.pi * step / steps)) + 0.01)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    with tqdm(range(steps), "training", unit="step") as bar:
        for step in bar:
            result = losses(model, surface_head, make_batch(rng, samples))
            optimizer.zero_grad()
            result.total.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            if step % 100 == 99:
                bar.set_postfix(loss=f"{result.total.item():.2f}", iou=f"{result.best_iou:.2f}")


@torch.no_grad()
def validate(model: Sam, surface_head: torch.nn.Linear, samples: list[Sample]) -> tuple[float, float]:
    """Return mean best-of-three IoU and surface accuracy on samples that were not used for training."""
    rng = np.random.default_rng(VALIDATION_SEED)
    results = [losses(model, surface_head, make_batch(rng, samples)) for _ in tqdm(range(50), "validation")]
    return float(np.mean([r.best_iou for r in results])), float(np.mean([r.surface_accuracy for r in results]))


def main() -> None:
    """Draw scenes, train, validate, save the state dict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=config.DEFAULT_OUTPUT_ROOT / "sam_vit_demo.pth", help="state dict to write"
    )
    parser.add_argument("--scenes", type=int, default=1500, help="training scenes")
    parser.add_argument("--steps", type=int, default=5000, help="steps of 2 images x 16 points")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    started = time.monotonic()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = build_vit_demo()
    surface_head = torch.nn.Linear(model.prompt_encoder.embed_dim, len(scenes.SURFACES), bias=False)
    train(model, surface_head, draw_samples(args.seed * 100_000, args.scenes), args.steps, rng)
    iou, accuracy = validate(model, surface_head, draw_samples(VALIDATION_SEED, 50))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.output)
    minutes = (time.monotonic() - started) / 60
    print(
        f"{args.output}: {args.steps} steps in {minutes:.0f} min; unseen scenes: IoU {iou:.3f}, surfaces {accuracy:.3f}"
    )


if __name__ == "__main__":
    main()
