"""Computes both stages of a window literally as in docs/method.md: the reference for speed and equality.

This module imports nothing from the project and rearranges nothing: every image is encoded as often as in the published
program, features are upsampled to the size of the window, and regions are averaged one after the other. It is not
made slower in any other way. The features of an image take C * H * W * 4 bytes on the model's device: 4 GiB for a
window of 2048 pixels and a SAM of 256 channels. Stage 1 holds the features of two images at a time, stage 2 of one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam


@torch.no_grad()
def stage1_window(
    model: Sam,
    reference: np.ndarray,
    monitor: np.ndarray,
    sam_params: dict[str, Any],
    min_mask_pixels: int,
    max_region_fraction: float,
) -> tuple[np.ndarray, int]:
    """Compute the change map of one window (section 3).

    Parameters
    ----------
    model
        SAM in evaluation mode; everything runs on its device.
    reference, monitor
        The same window of both images, (H, W, 3) uint8 RGB.
    sam_params
        Keyword arguments of segment_anything's SamAutomaticMaskGenerator.
    min_mask_pixels, max_region_fraction
        Masks with fewer pixels, or covering more than this share of the window, are dropped.

    Returns
    -------
    (H, W) float32 in [0, 1], 0 outside all masks; and the number of masks generated for both images together, before
    any is dropped for its area.

    """
    generator = SamAutomaticMaskGenerator(model, **sam_params)
    reference_masks = generator.generate(reference)
    monitor_masks = generator.generate(monitor)
    # The generator does not return its encodings, so the published program encodes both images a second time.
    features = _window_features(model, reference), _window_features(model, monitor)
    painted = [
        paint_changes(masks, *features, min_mask_pixels, max_region_fraction)
        for masks in (reference_masks, monitor_masks)
    ]
    return np.maximum(*painted), len(reference_masks) + len(monitor_masks)


def paint_changes(
    annotations: Sequence[dict[str, Any]],
    reference: torch.Tensor,
    monitor: torch.Tensor,
    min_mask_pixels: int,
    max_region_fraction: float,
) -> np.ndarray:
    """Paint the scores of one image's masks, (H, W) float32, from both images' features, (C, H, W) float32."""
    height, width = reference.shape[1:]
    painted = np.zeros((height, width), np.float32)
    # Python's sort is stable in reverse, too: masks of equal area keep the generator's order.
    for annotation in sorted(annotations, key=lambda annotation: annotation["area"], reverse=True):
        if annotation["area"] < min_mask_pixels or annotation["area"] > max_region_fraction * painted.size:
            continue
        mask = annotation["segmentation"]
        r, m = _region_mean(reference, mask), _region_mean(monitor, mask)
        score = 1 - (r @ m) / (r.norm() * m.norm() + 1e-8)
        painted[mask] = score.clip(0, 1).item()
    return painted


def filter_change_map(change_map: np.ndarray, quantile: float) -> np.ndarray:
    """Return a copy of an event's whole change map with values below its `quantile` set to 0 (section 4, step 1).

    `change_map`: (H, W) float32.
    """
    filtered = change_map.copy()
    filtered[change_map < np.quantile(change_map, quantile)] = 0
    return filtered


@torch.no_grad()
def stage2_window(
    model: Sam,
    historical: Sequence[np.ndarray],
    monitor: np.ndarray,
    filtered: np.ndarray,
    min_region_pixels: int,
    max_region_fraction: float,
) -> np.ndarray:
    """Compute the anomaly map of one window (section 4).

    Parameters
    ----------
    model
        SAM in evaluation mode; everything runs on its device.
    historical, monitor
        The same window of every historical image (at least one) and of the monitor image, (H, W, 3) uint8 RGB each.
    filtered
        (H, W) float32, the window of the filtered change map.
    min_region_pixels, max_region_fraction
        Regions with fewer pixels, or covering more than this share of the window, are dropped.

    Returns
    -------
    (H, W) float32 in [0, 2] apart from rounding, 0 outside all regions.

    """
    regions = []
    for value in np.unique(filtered[filtered != 0]):
        region = filtered == value
        if min_region_pixels <= np.count_nonzero(region) <= max_region_fraction * filtered.size:
            regions.append(region)
    # Date by date, so that only one date's features are in memory.
    *historical_means, monitor_means = (
        [_region_mean(features, region) for region in regions]
        for features in (_window_features(model, image) for image in (*historical, monitor))
    )
    anomalies = np.zeros(filtered.shape, np.float32)
    for number, region in enumerate(regions):
        anomalies[region] = 1 - max(_cosine(means[number], monitor_means[number]) for means in historical_means)
    return anomalies


def _window_features(model: Sam, image: np.ndarray) -> torch.Tensor:
    """Encode a window, (H, W, 3) uint8 RGB, and upsample its features to its size: (C, H, W) float32."""
    predictor = SamPredictor(model)
    predictor.set_image(image)
    return upsampled_features(predictor)


def upsampled_features(predictor: SamPredictor) -> torch.Tensor:
    """Return the features of a predictor's image, upsampled to its size: (C, H, W) float32."""
    features = predictor.get_image_embedding()
    height, width = predictor.input_size
    if height != width:
        # The padding may begin inside a cell, so it is cut off at the resolution of the encoder's input.
        size = predictor.model.image_encoder.img_size
        features = F.interpolate(features, size=(size, size), mode="nearest")[..., :height, :width]
    return F.interpolate(features, size=predictor.original_size, mode="nearest")[0]


def _region_mean(features: torch.Tensor, region: np.ndarray) -> torch.Tensor:
    """Average (C, H, W) features over the pixels of a region, (H, W) bool: (C,) float32."""
    return features[:, torch.from_numpy(region).to(features.device)].mean(dim=1)


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    norms = a.norm() * b.norm()
    return ((a @ b) / norms).item() if norms > 0 else 0.0
