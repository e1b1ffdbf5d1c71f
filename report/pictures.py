"""Scales images and maps down for pages and figures, and packs them for a page's script."""

import base64
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from img_io import Image, read_window
from rasters.raster import STRIP_ROWS
from utils import Window

NO_DATA = 128  # grey of pixels without data in photos
QUALITIES = (88, 80, 70, 55, 40, 25)  # of JPEGs, best first


class ShrunkImage(NamedTuple):
    """An image at the size of a page or a figure."""

    rgb: np.ndarray  # (h, w, 3) uint8; 0 where there is no data
    valid: np.ndarray | None  # (h, w) bool, False where there is no data; None: data everywhere
    coverage: float  # share of the full image's pixels that hold data, 0 to 1


def fitted_shape(shape: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return height and width scaled down in proportion to at most `max_side` pixels per side; never enlarged."""
    scale = min(1.0, max_side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def shrink_image(image: Image, shape: tuple[int, int]) -> ShrunkImage:
    """Scale an image down to `shape`, in strips; each pixel is the mean of the pixels with data that it covers."""
    rows, columns = (np.arange(new + 1) * old // new for old, new in zip(image.shape, shape, strict=True))
    parts = []
    step = max(1, STRIP_ROWS * shape[0] // image.shape[0])
    for first in range(0, shape[0], step):
        edges = rows[first : first + step + 1]
        pixels = read_window(image, Window(0, int(edges[0]), image.shape[1], int(edges[-1] - edges[0])))
        has_data = np.ones(pixels.rgb.shape[:2], bool) if pixels.valid is None else pixels.valid
        # Pixels without data are 0 in rgb: they add nothing to the sums.
        sums, counts = (_block_sums(values, edges[:-1] - edges[0], columns[:-1]) for values in (pixels.rgb, has_data))
        rgb = np.rint(sums / np.maximum(counts, 1)[..., None]).astype(np.uint8)
        parts.append((rgb, counts))
    rgb, counts = (np.concatenate(values) for values in zip(*parts, strict=True))
    coverage = int(counts.sum()) / (image.shape[0] * image.shape[1])
    return ShrunkImage(rgb, None if counts.all() else counts > 0, coverage)


def _block_sums(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sum blocks that begin at these rows and columns: (rows, columns) or (rows, columns, channels) uint64."""
    return np.add.reduceat(np.add.reduceat(values, columns, axis=1, dtype=np.uint64), rows, axis=0)


def paint_gaps(pixels: ShrunkImage) -> np.ndarray:
    """Return the photo, (h, w, 3) uint8, with grey pixels where there is no data."""
    if pixels.valid is None:
        return pixels.rgb
    return np.where(pixels.valid[..., None], pixels.rgb, np.uint8(NO_DATA))


def encode_photo(photo: np.ndarray, max_bytes: int) -> bytes:
    """Encode a photo as a JPEG of at most `max_bytes`: lower the quality as needed, then halve the size."""
    while True:
        for quality in QUALITIES:
            encoded = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(encoded) <= max_bytes or max(photo.shape[:2]) <= 2:
                return encoded
        half = (max(1, photo.shape[1] // 2), max(1, photo.shape[0] // 2))
        photo = cv2.resize(photo, half, interpolation=cv2.INTER_AREA)


def pack(values: np.ndarray) -> str:
    """Return the bytes of an array, little-endian, compressed with zlib, as base64."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 6)).decode()


def pack_masks(masks: np.ndarray) -> str:
    """Pack masks, (n, h, w) bool, with eight pixels per byte. Each is stored as the exclusive or with the previous one.

    Masks of neighbouring thresholds differ little, so the difference compresses well.
    """
    bits = np.packbits(masks.reshape(len(masks), -1), axis=1)
    bits[1:] ^= bits[:-1].copy()
    return pack(bits)


def outline(photo: np.ndarray, mask: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """Draw the outlines of a mask, (h, w) bool, on a copy of a photo, (h, w, 3) uint8."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = photo.copy()
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), 7, cv2.LINE_AA)
    cv2.drawContours(drawn, contours, -1, tuple(color), 4, cv2.LINE_AA)
    return drawn
