"""Encodes windows with SAM, each image once, and generates the masks of SamAutomaticMaskGenerator, but faster.

The contract is *encode once*: only `encode` runs the image encoder, and mask generation takes its result. See
docs/method.md, section 3, for the generator, and docs/benchmarks.md for the gain from each difference.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from segment_anything.utils.amg import generate_crop_boxes, is_box_near_crop_edge, uncrop_boxes_xyxy
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms
from torchvision.ops.boxes import box_area

from sam.devices import Batches, batch_size
from sam.encoders import PLAIN_VIT, EncoderKind
from sam.execution import PRECISIONS, Execution
from sam.features import WindowFeatures
from sam.mask_measures import WindowScale
from sam.masks import Mask, clean_mask
from sam.prompt_decoder import DecodedMasks, PromptDecoder
from sam.scaling import scale_longest_side
from utils import UsageError, first_line


class ScaledImage(NamedTuple):
    """An image of a window, scaled for the encoder."""

    pixels: np.ndarray  # (h, w, 3) uint8 RGB; the longer side has the encoder's input size
    window_size: tuple[int, int]  # height and width before scaling


class _Crop(NamedTuple):
    """A part of the window in which masks are generated: the whole window, unless `crop_n_layers` > 0."""

    features: WindowFeatures
    box: list[int]  # x0, y0, x1, y1 in the window
    points: np.ndarray  # (n, 2) float64: x, y in the crop


class _Candidates(NamedTuple):
    """Masks of one crop that passed the filters so far."""

    logits: Tensor  # (n, L, L) float32
    predicted_iou: Tensor  # (n,) float32
    boxes: Tensor  # (n, 4) int64, in the crop

    def at(self, index: Tensor) -> "_Candidates":
        return _Candidates(self.logits[index], self.predicted_iou[index], self.boxes[index])


@dataclass(frozen=True)
class PendingMasks:
    """The masks of a window; their clean-up may still run on host threads."""

    cleaned: list["Future[tuple[Mask, bool]]"]
    nms_threshold: float | None  # of the NMS after the clean-up; None: no clean-up

    def collect(self) -> list[Mask]:
        """Wait for the clean-up and return the masks in the generator's order; the list may be empty."""
        masks = [future.result() for future in self.cleaned]
        if self.nms_threshold is None or not masks:
            return [mask for mask, _ in masks]
        boxes = torch.tensor([mask.edges for mask, _ in masks], dtype=torch.float32)
        untouched = torch.tensor([float(not changed) for _, changed in masks])  # scores: NMS prefers untouched masks
        kept = batched_nms(boxes, untouched, torch.zeros(len(boxes)), self.nms_threshold)
        return [masks[index][0] for index in kept.tolist()]


class SamEngine:
    """One SAM on one device: encodes windows and generates their masks. As a context manager, ends its threads."""

    def __init__(
        self,
        model: Sam,
        device: torch.device,
        execution: Execution | None = None,
        kind: EncoderKind = PLAIN_VIT,
    ) -> None:
        """Move `model` to the device and replace parts of its encoder by equivalent, faster ones.

        `kind`: of the model's encoder, as its row of the registry says.
        """
        execution = execution or Execution()
        self.device = device
        self._model = model.to(device)
        kind.accelerate(model.image_encoder)
        self._encoder = torch.compile(model.image_encoder) if execution.compile else model.image_encoder
        self._resize = ResizeLongestSide(model.image_encoder.img_size)
        self.decoder = PromptDecoder(model.prompt_encoder, model.mask_decoder)
        self._dtype = getattr(torch, PRECISIONS[execution.precision])
        encode_batch = execution.encode_batch or batch_size(device, kind.image_bytes(model.image_encoder))
        self._encode_batches = Batches(encode_batch, "--encode-batch")
        points_per_batch = execution.points_per_batch or batch_size(device, point_bytes(model))
        self._point_batches = Batches(points_per_batch, "--points-per-batch")
        self._host = ThreadPoolExecutor(execution.host_threads or os.cpu_count(), "mask clean-up")

    def __enter__(self) -> "SamEngine":
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the host threads and cancel waiting clean-ups, so that an interrupted run does not wait for them."""
        self._host.shutdown(cancel_futures=True)

    def scale(self, image: np.ndarray) -> ScaledImage:
        """Scale an image of a window, (H, W, 3) uint8 RGB, as SAM does. Runs on the CPU, in any thread."""
        return ScaledImage(scale_longest_side(image, self._resize.target_length), image.shape[:2])

    @torch.no_grad()
    def encode(self, images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        """Encode images of windows of one size; one result per image. Raises EventError if not even one image fits."""
        return [features for batch in self._encode_batches.run(self._encode_batch, images) for features in batch]

    def _encode_batch(self, images: Sequence[ScaledImage]) -> list[WindowFeatures]:
        pixels = torch.from_numpy(np.stack([image.pixels for image in images])).to(self.device)
        with self._precision():
            embeddings = self._encoder(self._model.preprocess(pixels.permute(0, 3, 1, 2))).float()
        size = self._model.image_encoder.img_size
        return [
            WindowFeatures.from_embedding(embedding[None], image.window_size, image.pixels.shape[:2], size)
            for embedding, image in zip(embeddings, images, strict=True)
        ]

    @torch.no_grad()
    def generate_masks(
        self, image: np.ndarray | None, features: WindowFeatures, parameters: dict[str, Any]
    ) -> PendingMasks:
        """Generate a window's masks: those of SamAutomaticMaskGenerator, in its order.

        `image`: (H, W, 3) uint8 RGB, the image that `features` encode; may be None if `crop_n_layers` is 0.
        `parameters`: keyword arguments of SamAutomaticMaskGenerator; `points_per_batch` and `output_mode` are ignored.
        Masks may overlap. Raises UsageError for invalid parameters, and EventError if the device's memory is too small
        for a single point.
        """
        try:
            # The output mode is fixed because `coco_rle` needs pycocotools, which is not installed.
            settings = SamAutomaticMaskGenerator(self._model, **parameters | {"output_mode": "binary_mask"})
            if len(settings.point_grids) <= settings.crop_n_layers:
                raise ValueError("no point grid for every crop layer")
        except (TypeError, AssertionError, ValueError, ZeroDivisionError) as error:
            raise UsageError(f"invalid SAM mask parameters ({first_line(error)}): {parameters}") from None
        crops = self._crops(image, features, settings)
        found = [self._candidates(crop, settings, features.window_size) for crop in crops]
        survivors = _drop_duplicates(crops, found, settings.crop_nms_thresh)
        masks = self._to_host([self._full_size(*survivor) for survivor in survivors])
        return self._cleaned(masks, features.window_size, settings)

    def _cleaned(
        self, masks: list[Mask], window_size: tuple[int, int], settings: SamAutomaticMaskGenerator
    ) -> PendingMasks:
        """Begin to clean masks on host threads."""
        smallest = settings.min_mask_region_area
        return PendingMasks(
            [self._host.submit(clean_mask, mask, window_size, smallest) for mask in masks],
            max(settings.box_nms_thresh, settings.crop_nms_thresh) if smallest > 0 else None,
        )

    def _crops(
        self, image: np.ndarray | None, features: WindowFeatures, settings: SamAutomaticMaskGenerator
    ) -> list[_Crop]:
        height, width = features.window_size
        crops = []
        boxes = generate_crop_boxes((height, width), settings.crop_n_layers, settings.crop_overlap_ratio)
        for (x0, y0, x1, y1), layer in zip(*boxes, strict=True):
            encoded = features
            if layer > 0:
                assert image is not None
                encoded = self.encode([self.scale(image[y0:y1, x0:x1])])[0]
            points = settings.point_grids[layer] * np.array([x1 - x0, y1 - y0])
            crops.append(_Crop(encoded, [x0, y0, x1, y1], points))
        return crops

    def _candidates(
        self, crop: _Crop, settings: SamAutomaticMaskGenerator, window_size: tuple[int, int]
    ) -> _Candidates:
        """Return a crop's masks that pass the filters on predicted IoU, stability and the crop's edges, and NMS."""
        whole, threshold = [0, 0, window_size[1], window_size[0]], self._model.mask_threshold
        scale = WindowScale(
            4 * crop.features.embedding.shape[-1],  # SAM's decoder upscales the feature grid by 4
            self._model.image_encoder.img_size,
            crop.features.input_size,
            crop.features.window_size,
            self.device,
        )
        points = torch.from_numpy(self._resize.apply_coords(crop.points, crop.features.window_size))
        with self._precision():
            image = self.decoder.image_side(crop.features.embedding[0])

        def find(batch: Tensor) -> _Candidates:
            with self._precision():
                decoded: DecodedMasks = self.decoder.decode(image, batch.to(self.device), settings.pred_iou_thresh)
            measures = scale.measure(
                decoded.logits, threshold, settings.stability_score_offset, settings.stability_score_thresh
            )
            kept = ~is_box_near_crop_edge(measures.boxes, crop.box, whole)
            if settings.stability_score_thresh > 0:
                kept &= measures.stability >= settings.stability_score_thresh
            return _Candidates(decoded.logits, decoded.predicted_iou, measures.boxes).at(kept)

        batches = self._point_batches.run(find, points)
        found = _Candidates(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
        kept = batched_nms(
            found.boxes.float(), found.predicted_iou, torch.zeros_like(found.predicted_iou), settings.box_nms_thresh
        )
        return found.at(kept)

    def _full_size(self, crop: _Crop, logits: Tensor, box: list[int]) -> tuple[Tensor, int, int]:
        """Return a mask's pixels at full size, (h, w) bool, and the window's column and row at which they begin."""
        input_height, input_width = crop.features.input_size
        size = self._model.image_encoder.img_size
        scaled = F.interpolate(logits[None, None], (size, size), mode="bilinear", align_corners=False)
        pixels, x, y = _enlarge(scaled[..., :input_height, :input_width], crop.features.window_size, box)
        return pixels > self._model.mask_threshold, crop.box[0] + x, crop.box[1] + y

    def _to_host(self, masks: list[tuple[Tensor, int, int]]) -> list[Mask]:
        """Copy masks from the device to the host in one transfer; a GPU packs eight pixels per byte."""
        if not masks:
            return []
        flat = torch.cat([pixels.flatten() for pixels, _, _ in masks])
        if self.device.type == "cpu":
            bits = flat.numpy()
        else:
            bits = np.unpackbits(pack_bits(flat).cpu().numpy(), count=len(flat)).view(bool)
        ends = np.cumsum([pixels.numel() for pixels, _, _ in masks])[:-1]
        return [
            Mask.of(part.reshape(pixels.shape), x, y)
            for part, (pixels, x, y) in zip(np.split(bits, ends), masks, strict=True)
        ]

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32)


def pack_bits(values: Tensor) -> Tensor:
    """Pack (n,) bool into uint8, eight per byte, highest bit first, for `np.unpackbits`. Stays on the device."""
    octets = F.pad(values, (0, -len(values) % 8)).view(-1, 8).to(torch.uint8)
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=values.device)
    return (octets * places).sum(1, dtype=torch.uint8)


def _enlarge(scaled: Tensor, window_size: tuple[int, int], box: list[int]) -> tuple[Tensor, int, int]:
    """Interpolate logits to the window's size as SAM does, but only the part that holds a mask's box.

    `scaled`: (1, 1, h, w) logits at the encoder's scale. `box`: x0, y0, x1, y1 in the window. Returns the part and the
    window's column and row at which it begins. If the zoom is a whole number, each pixel is interpolated from the same
    logits with the same weights as in the whole window, so the part is cut out first. Otherwise rounding would differ,
    and the part is the whole window.
    """
    height, width = scaled.shape[2:]
    zoom = window_size[0] // height
    if (zoom * height, zoom * width) != window_size:
        return F.interpolate(scaled, window_size, mode="bilinear", align_corners=False)[0, 0], 0, 0
    # A margin of two logits: one is trimmed, as its pixels depend on logits outside; one is for rounding of the box.
    left, top = (max(edge // zoom - 2, 0) for edge in box[:2])
    part = scaled[:, :, top : box[3] // zoom + 3, left : box[2] // zoom + 3]
    full = (part.shape[2] * zoom, part.shape[3] * zoom)
    pixels = F.interpolate(part, full, mode="bilinear", align_corners=False)[0, 0]
    first_row, first_column = (zoom if start > 0 else 0 for start in (top, left))
    last_row = full[0] - (zoom if top + part.shape[2] < height else 0)
    last_column = full[1] - (zoom if left + part.shape[3] < width else 0)
    return pixels[first_row:last_row, first_column:last_column], left * zoom + first_column, top * zoom + first_row


def _drop_duplicates(
    crops: list[_Crop], found: list[_Candidates], threshold: float
) -> list[tuple[_Crop, Tensor, list[int]]]:
    """Return all crops' masks as (crop, logits, box); with several crops, after an NMS that prefers smaller crops."""
    masks = [
        (crop, logits, box)
        for crop, candidates in zip(crops, found, strict=True)
        for logits, box in zip(candidates.logits, candidates.boxes.tolist(), strict=True)
    ]
    if len(crops) == 1:
        return masks
    boxes = torch.cat(
        [uncrop_boxes_xyxy(candidates.boxes, crop.box) for crop, candidates in zip(crops, found, strict=True)]
    )
    scores = 1 / box_area(torch.tensor([crop.box for crop, _, _ in masks]).view(-1, 4)).to(boxes.device)
    kept = batched_nms(boxes.float(), scores, torch.zeros_like(scores), threshold)
    return [masks[index] for index in kept.tolist()]


def point_bytes(model: Sam) -> int:
    """Estimate the device memory for decoding one point, in bytes."""
    rows, columns = model.prompt_encoder.image_embedding_size
    return rows * columns * model.prompt_encoder.embed_dim * 4 * 16
