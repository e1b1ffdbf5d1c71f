"""Generates the masks of SamAutomaticMaskGenerator for windows that are encoded already, but faster.

See docs/method.md, section 3, for the generator, and docs/benchmarks.md for the gain from each difference.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import (
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
    uncrop_boxes_xyxy,
)
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms
from torchvision.ops.boxes import box_area

from sam.devices import Batches, autocast, batch_size, decoding_threads, release_freed_memory, single_threaded_pool
from sam.execution import Execution
from sam.features import WindowFeatures
from sam.mask_measures import LogitPart, WindowScale
from sam.masks import Mask, clean_mask
from sam.prompt_decoder import DecodedMasks, PromptDecoder
from utils import UsageError, first_line

IGNORED = ("points_per_batch", "output_mode")  # arguments of SamAutomaticMaskGenerator that do not affect masks


@dataclass(frozen=True)
class MaskParameters:
    """Arguments of SamAutomaticMaskGenerator, with its names and defaults."""

    points_per_side: int | None = 32  # of the grid of prompts; None: `point_grids`
    pred_iou_thresh: float = 0.88  # least IoU that SAM predicts of a mask
    stability_score_thresh: float = 0.95  # least IoU of a mask at two thresholds
    stability_score_offset: float = 1.0  # of these thresholds, from the mask threshold
    box_nms_thresh: float = 0.7  # largest IoU of two masks' boxes
    crop_n_layers: int = 0  # levels of crops in which masks are generated beside the whole window
    crop_nms_thresh: float = 0.7  # as box_nms_thresh, between crops
    crop_overlap_ratio: float = 512 / 1500  # of the crops of the first level, share of the window
    crop_n_points_downscale_factor: int = 1  # by which the grid is coarser at each level
    point_grids: list[np.ndarray] | None = None  # (n, 2) x, y from 0 to 1, one for each level; None: regular grids
    min_mask_region_area: int = 0  # smallest hole that is kept, and smallest island, pixels

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> "MaskParameters":
        """Return the parameters of a dict of arguments. Raises UsageError if there is no such mask generator."""
        try:
            found = cls(**{name: value for name, value in parameters.items() if name not in IGNORED})
            if (found.points_per_side is None) == (found.point_grids is None):
                raise ValueError("needs either points_per_side or point_grids")
            for field in fields(cls):
                if field.name != "point_grids":
                    _check_number(field.name, getattr(found, field.name))
            if len(found.grids()) <= found.crop_n_layers:
                raise ValueError("no point grid for every crop layer")
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise UsageError(f"invalid SAM mask parameters ({first_line(error)}): {parameters}") from None
        return found

    @property
    def points(self) -> int:
        """The number of prompts in a whole window, without those in crops."""
        return len(self.grids()[0])

    def grids(self) -> list[np.ndarray]:
        """Return the prompts of each level of crops, (n, 2) float64: x, y from 0 to 1."""
        if self.point_grids is not None:
            return [np.asarray(grid) for grid in self.point_grids]
        assert self.points_per_side is not None
        return build_all_layer_point_grids(
            self.points_per_side, self.crop_n_layers, self.crop_n_points_downscale_factor
        )


class _Crop(NamedTuple):
    """A part of the window in which masks are generated: the whole window, unless `crop_n_layers` > 0."""

    features: WindowFeatures
    box: list[int]  # x0, y0, x1, y1 in the window
    points: np.ndarray  # (n, 2) float64: x, y in the crop


class _Candidates(NamedTuple):
    """Masks of one crop that passed the filters so far."""

    logits: list[LogitPart]  # n
    predicted_iou: Tensor  # (n,) float32
    boxes: Tensor  # (n, 4) int64, in the crop


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


def ignore_points(count: int) -> None:
    """Do nothing with the number of points that are done."""


class MaskGenerator:
    """Generates masks with one SAM on one device."""

    def __init__(
        self,
        model: Sam,
        device: torch.device,
        execution: Execution,
        encode: Callable[[np.ndarray], WindowFeatures],
        points_done: Callable[[int], object] = ignore_points,
    ) -> None:
        """Take a model that is on the device.

        `encode`: encodes a crop of a window, (h, w, 3) uint8 RGB. `points_done`: called after each batch of points.
        """
        self._points_done = points_done
        self.decoder = PromptDecoder(model.prompt_encoder, model.mask_decoder, execution.compile)
        self._model = model
        self._device = device
        self._precision = execution.precision
        self._encode = encode
        self._resize = ResizeLongestSide(model.image_encoder.img_size)
        self._host = single_threaded_pool()
        most = batch_size(device, point_bytes(model), decoding_threads(device.type))
        self._point_batches = Batches(execution.points_per_batch or most, "--points-per-batch")

    def close(self) -> None:
        """End the host threads and cancel waiting clean-ups, so that an interrupted run does not wait for them."""
        self._host.shutdown(cancel_futures=True)

    @torch.no_grad()
    def generate(self, image: np.ndarray | None, features: WindowFeatures, parameters: MaskParameters) -> PendingMasks:
        """Generate a window's masks: those of SamAutomaticMaskGenerator, in its order; they may overlap.

        `image`: (H, W, 3) uint8 RGB, the image that `features` encode; may be None if `crop_n_layers` is 0. Raises
        EventError if the device's memory is too small for a single point.
        """
        release_freed_memory(self._device)
        crops = self._crops(image, features, parameters)
        found = [self._candidates(crop, parameters, features.window_size) for crop in crops]
        survivors = _drop_duplicates(crops, found, parameters.crop_nms_thresh)
        masks = self._to_host([self._full_size(*survivor) for survivor in survivors])
        return self._cleaned(masks, features.window_size, parameters)

    def _cleaned(self, masks: list[Mask], window_size: tuple[int, int], parameters: MaskParameters) -> PendingMasks:
        """Begin to clean masks on host threads."""
        smallest = parameters.min_mask_region_area
        return PendingMasks(
            [self._host.submit(clean_mask, mask, window_size, smallest) for mask in masks],
            max(parameters.box_nms_thresh, parameters.crop_nms_thresh) if smallest > 0 else None,
        )

    def _crops(self, image: np.ndarray | None, features: WindowFeatures, parameters: MaskParameters) -> list[_Crop]:
        height, width = features.window_size
        grids = parameters.grids()
        crops = []
        boxes = generate_crop_boxes((height, width), parameters.crop_n_layers, parameters.crop_overlap_ratio)
        for (x0, y0, x1, y1), layer in zip(*boxes, strict=True):
            encoded = features
            if layer > 0:
                assert image is not None
                encoded = self._encode(image[y0:y1, x0:x1])
            points = grids[layer] * np.array([x1 - x0, y1 - y0])
            crops.append(_Crop(encoded, [x0, y0, x1, y1], points))
        return crops

    def _candidates(self, crop: _Crop, parameters: MaskParameters, window_size: tuple[int, int]) -> _Candidates:
        """Return a crop's masks that pass the filters on predicted IoU, stability and the crop's edges, and NMS."""
        whole, threshold = [0, 0, window_size[1], window_size[0]], self._model.mask_threshold
        scale = WindowScale(
            4 * crop.features.embedding.shape[-1],  # SAM's decoder upscales the feature grid by 4
            self._model.image_encoder.img_size,
            crop.features.input_size,
            crop.features.window_size,
            self._device,
        )
        points = torch.from_numpy(self._resize.apply_coords(crop.points, crop.features.window_size))
        with autocast(self._device, self._precision):
            image = self.decoder.image_side(crop.features.embedding[0])

        @torch.no_grad()  # a setting of each thread
        def find(batch: Tensor) -> _Candidates:
            with autocast(self._device, self._precision):
                decoded: DecodedMasks = self.decoder.decode(image, batch.to(self._device), parameters.pred_iou_thresh)
            measures = scale.measure(
                decoded.logits, threshold, parameters.stability_score_offset, parameters.stability_score_thresh
            )
            kept = ~is_box_near_crop_edge(measures.boxes, crop.box, whole)
            if parameters.stability_score_thresh > 0:
                kept &= measures.stability >= parameters.stability_score_thresh
            boxes = measures.boxes[kept]
            return _Candidates(scale.cut(decoded.logits, kept, boxes), decoded.predicted_iou[kept], boxes)

        batches = []
        for batch, found in self._in_batches(find, points):
            batches += found
            self._points_done(len(batch))
        parts = [part for batch in batches for part in batch.logits]
        predicted_iou = torch.cat([batch.predicted_iou for batch in batches])
        boxes = torch.cat([batch.boxes for batch in batches])
        kept = batched_nms(boxes.float(), predicted_iou, torch.zeros_like(predicted_iou), parameters.box_nms_thresh)
        return _Candidates([parts[index] for index in kept.tolist()], predicted_iou[kept], boxes[kept])

    def _in_batches(
        self, find: Callable[[Tensor], _Candidates], points: Tensor
    ) -> Iterator[tuple[Tensor, list[_Candidates]]]:
        """Yield batches of points, each with what `find` returns for it: in parts if the memory is too small.

        On a CPU, each batch has a thread for itself: many operations are too small to be shared between threads.
        """
        batches = points.split(self._point_batches.size)
        run = self._host.map if self._device.type == "cpu" else map
        return zip(batches, run(lambda batch: list(self._point_batches.run(find, batch)), batches), strict=True)

    def _full_size(self, crop: _Crop, logits: LogitPart, box: list[int]) -> tuple[Tensor, int, int]:
        """Return a mask's pixels at full size, (h, w) bool, and the window's column and row at which they begin."""
        input_height, input_width = crop.features.input_size
        size = self._model.image_encoder.img_size
        scaled = F.interpolate(logits.whole()[None, None], (size, size), mode="bilinear", align_corners=False)
        pixels, x, y = _enlarge(scaled[..., :input_height, :input_width], crop.features.window_size, box)
        return pixels > self._model.mask_threshold, crop.box[0] + x, crop.box[1] + y

    def _to_host(self, masks: list[tuple[Tensor, int, int]]) -> list[Mask]:
        """Copy masks from the device to the host in one transfer; a GPU packs eight pixels per byte."""
        if not masks:
            return []
        flat = torch.cat([pixels.flatten() for pixels, _, _ in masks])
        if self._device.type == "cpu":
            bits = flat.numpy()
        else:
            bits = np.unpackbits(pack_bits(flat).cpu().numpy(), count=len(flat)).view(bool)
        ends = np.cumsum([pixels.numel() for pixels, _, _ in masks])[:-1]
        return [
            Mask.of(part.reshape(pixels.shape), x, y)
            for part, (pixels, x, y) in zip(np.split(bits, ends), masks, strict=True)
        ]


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, int | float) and not (name == "points_per_side" and value is None):
        raise TypeError(f"{name} is no number")


def pack_bits(values: Tensor) -> Tensor:
    """Pack (n,) bool into uint8, eight per byte, highest bit first, for `np.unpackbits`. Stays on the device."""
    octets = F.pad(values, (0, -len(values) % 8)).view(-1, 8).to(torch.uint8)
    bit_values = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=values.device)
    return (octets * bit_values).sum(1, dtype=torch.uint8)


def _enlarge(scaled: Tensor, window_size: tuple[int, int], box: list[int]) -> tuple[Tensor, int, int]:
    """Interpolate logits to the window's size as SAM does, but only the part that holds a mask's box.

    `scaled`: (1, 1, h, w) logits at the encoder's scale. `box`: x0, y0, x1, y1 in the window. Returns the part and the
    window's column and row at which it begins. If the zoom is a whole number, each pixel is interpolated from the same
    logits with the same weights as in the whole window, so the part is cut out first. Otherwise rounding would differ,
    and the part is cut out of the whole window.
    """
    height, width = scaled.shape[2:]
    zoom = window_size[0] // height
    if (zoom * height, zoom * width) != window_size:
        pixels = F.interpolate(scaled, window_size, mode="bilinear", align_corners=False)[0, 0]
        left, top = (max(edge - 2, 0) for edge in box[:2])  # two pixels for rounding of the box
        return pixels[top : box[3] + 3, left : box[2] + 3], left, top
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
) -> list[tuple[_Crop, LogitPart, list[int]]]:
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
