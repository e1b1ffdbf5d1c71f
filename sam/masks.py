"""A window's masks on the host: stored with their box, cleaned of small holes and islands inside it."""

from dataclasses import dataclass

import cv2
import numpy as np

from utils import Window


@dataclass(frozen=True)
class Mask:
    """A region of a window; all its pixels lie in `box`, which need not be tight."""

    box: Window  # in pixels of the window
    pixels: np.ndarray  # (box.height, box.width) bool
    area: int  # pixels

    @classmethod
    def of(cls, pixels: np.ndarray, x: int = 0, y: int = 0) -> "Mask":
        """Create a mask of `pixels`, (h, w) bool, that begin at column `x` and row `y` of the window."""
        height, width = pixels.shape
        return cls(Window(x, y, width, height), pixels, int(np.count_nonzero(pixels)))

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """First column, first row, last column and last row that hold pixels; all 0 for an empty mask."""
        rows, columns = (np.flatnonzero(self.pixels.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return 0, 0, 0, 0
        x, y = self.box.x, self.box.y
        return x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]), y + int(rows[-1])

    def within(self, valid: np.ndarray) -> "Mask":
        """Return the mask without the pixels where `valid`, (H, W) bool of the whole window, is false."""
        return Mask.of(self.pixels & valid[self.box.slices], self.box.x, self.box.y)

    def full(self, window_size: tuple[int, int]) -> np.ndarray:
        """Return the mask as an array of the window's size, (H, W) bool."""
        pixels = np.zeros(window_size, bool)
        pixels[self.box.slices] = self.pixels
        return pixels


def clean_mask(mask: Mask, window_size: tuple[int, int], min_area: int) -> tuple[Mask, bool]:
    """Fill holes, then drop islands, of fewer than `min_area` pixels; also return whether anything changed.

    Equal to segment_anything's `remove_small_regions` on the whole window, but computed inside the mask's box. If all
    islands are smaller than `min_area`, the largest stays. Components are 8-connected.
    """
    framed, outside = _add_margin(mask, window_size, min_area)
    pixels, filled = _fill_holes(framed.pixels, outside, min_area)
    pixels, dropped = _drop_islands(pixels, min_area)
    if not (filled or dropped):
        return mask, False
    return Mask.of(pixels, framed.box.x, framed.box.y), True


def _add_margin(mask: Mask, window_size: tuple[int, int], min_area: int) -> tuple[Mask, np.ndarray]:
    """Return the mask in a box with a margin of 1 or 2 pixels, and which pixels of the box border on the outside.

    The margin connects all background pixels that are connected outside of the box. If the background outside may
    itself be a hole (fewer than `min_area` pixels), its exact size matters, and the box is the whole window. The box
    begins at even pixels because OpenCV numbers components by blocks of 2 x 2, and the first of several equally large
    islands stays.
    """
    height, width = window_size
    if not mask.area:
        mask = Mask.of(np.zeros(window_size, bool))  # the edges of an empty mask, all 0, need not lie in its box
    x0, y0, x1, y1 = mask.edges
    left, top = (max(edge - 1, 0) // 2 * 2 for edge in (x0, y0))
    right, bottom = min(x1 + 2, width), min(y1 + 2, height)
    # Strips beside the box at full height or width: each lies in one background component.
    strips = (left * height, (width - right) * height, top * width, (height - bottom) * width)
    if any(0 < strip < min_area for strip in strips):
        return Mask.of(mask.full(window_size)), np.zeros(window_size, bool)
    pixels = np.zeros((bottom - top, right - left), bool)
    pixels[y0 - top : y1 + 1 - top, x0 - left : x1 + 1 - left] = mask.pixels[
        y0 - mask.box.y : y1 + 1 - mask.box.y, x0 - mask.box.x : x1 + 1 - mask.box.x
    ]
    outside = np.zeros(pixels.shape, bool)
    outside[:, :1], outside[:, -1:] = left > 0, right < width
    outside[:1] |= top > 0
    outside[-1:] |= bottom < height
    return Mask.of(pixels, left, top), outside


def _fill_holes(pixels: np.ndarray, outside: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    components, areas = _components(~pixels)
    if len(areas) <= 2 and outside.any():
        return pixels, False  # the only component is the background around the mask
    small = areas < min_area
    small[components[outside]] = False
    small[0] = False  # the mask itself
    return (pixels | small[components], True) if small.any() else (pixels, False)


def _drop_islands(pixels: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    components, areas = _components(pixels)
    kept = areas >= min_area
    kept[0] = False  # the background
    if kept[1:].all():
        return pixels, False
    if not kept.any():
        kept[1 + np.argmax(areas[1:])] = True
    return kept[components], True


def _components(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label the components of the pixels that are set; returns the labels, (h, w) int32, and the area of each label.

    OpenCV measures components, too, but takes five times as long, because it also computes their boxes and centroids.
    """
    count, labels = cv2.connectedComponents(pixels.view(np.uint8), connectivity=8)
    if count > 2:
        return labels, np.bincount(labels.ravel(), minlength=count)
    inside = int(np.count_nonzero(pixels))
    return labels, np.array([pixels.size - inside, inside])[:count]
