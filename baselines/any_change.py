"""AnyChange's bitemporal latent matching: SAM's masks of both dates, compared by their embeddings.

Z. Zheng et al., "Segment Any Change", NeurIPS 2024, section 3. Our own code, with the masks and features of `sam/`. The
paper's point queries are left out.
"""

from pathlib import Path

import numpy as np

import config
from baselines.dates import Scored
from img_io import EventImages, read_window, valid_in_all
from rasters.raster import RawRaster
from sam.engine import SamEngine
from sam.features import region_means
from sam.mask_generator import MaskParameters
from stage2_analysis import cosine_similarity
from utils import tile

# The paper's settings of the masks, with as many points as stage 1. Masks larger than MAX_MASK_FRACTION of the window
# are dropped.
MASKS = MaskParameters(
    points_per_side=config.STAGE1_SAM_PARAMS["points_per_side"],
    pred_iou_thresh=0.5,
    stability_score_thresh=0.95,
    box_nms_thresh=0.7,
    min_mask_region_area=0,
)
MAX_MASK_FRACTION = 0.8
LEAST_ANGLE = 25.0  # degrees between the embeddings of a changed mask; the paper's 155 is measured to the opposite one


def any_change(images: EventImages, engine: SamEngine, path: Path) -> Scored:
    """Return, for each pixel, the largest angle between the two embeddings of a mask, with the paper's threshold.

    `path`: a new file, for the angles.
    """
    angles = RawRaster(path, images.shape)
    angles.create()
    for window in tile(*images.shape, config.STAGE1_PATCH_SIZE):
        pixels = [read_window(image, window) for image in (images.reference, images.monitor)]
        valid = valid_in_all(pixels)
        if valid is not None and not valid.any():
            angles.write(window, np.full(valid.shape, np.nan, np.float32))
            continue
        found = window_angles(pixels[0].rgb, pixels[1].rgb, engine)
        if valid is not None:
            found[~valid] = np.nan
        angles.write(window, found)
    return Scored(angles, LEAST_ANGLE)


def window_angles(reference: np.ndarray, monitor: np.ndarray, engine: SamEngine) -> np.ndarray:
    """Return the angles of a window in degrees, (H, W) float32; 0 outside of all masks. Images: (H, W, 3) uint8."""
    features = engine.encode([engine.scale(image) for image in (reference, monitor)])
    masks = [
        mask
        for image, encoded in zip((reference, monitor), features, strict=True)
        for mask in engine.generator.generate(image, encoded, MASKS).collect()
        if 0 < mask.area < MAX_MASK_FRACTION * reference.shape[0] * reference.shape[1]
    ]
    angles = np.zeros(reference.shape[:2], np.float32)
    if not masks:
        return angles
    counts, plain = features[0].mask_counts(masks), [engine.without_affine(encoded) for encoded in features]
    cosines = cosine_similarity(*region_means(counts, plain))
    for mask, angle in zip(masks, np.degrees(np.arccos(np.clip(cosines, -1, 1))), strict=True):
        part = angles[mask.box.slices]
        part[mask.pixels] = np.maximum(part[mask.pixels], angle)
    return angles
