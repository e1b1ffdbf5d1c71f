"""Brings rasters of any size to what a page can hold: averaged photos, sampled scores, packed masks."""

import base64
import zlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from img_io import Image, Pixels, read_window
from utils import Window

NO_DATA = 128  # grey of pixels without data in photos
QUALITIES = (88, 80, 70, 55, 40, 25)  # of JPEGs, best first
SOURCE_ROWS = 256  # that a photo is read by, where it has that many for one row of the result


def fit(shape: tuple[int, int], longest: int) -> tuple[int, int]:
    """The size of a raster, scaled down so that its longer side is at most `longest` pixels."""
    scale = min(1.0, longest / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def average_photo(image: Image, shape: tuple[int, int]) -> np.ndarray:
    """A photo scaled down to `shape`, each pixel the mean of those with data that it covers; (h, w, 3) uint8."""
    return average_area(lambda window: read_window(image, window), image.shape, shape)


def average_area(read: Callable[[Window], Pixels], source: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Scale down by area, reading a raster of size `source` by windows of its full width; (h, w, 3) uint8.

    Every pixel of the result covers whole pixels. It is grey where none of these has data.
    """
    rows, columns = (_edges(old, new) for old, new in zip(source, shape, strict=True))
    parts = []
    step = max(1, SOURCE_ROWS * shape[0] // source[0])
    for first in range(0, shape[0], step):
        edges = rows[first : first + step + 1]
        window = Window(0, int(edges[0]), source[1], int(edges[-1] - edges[0]))
        rgb, valid = read(window)
        sums = _sum_blocks(rgb, edges[:-1] - edges[0], columns[:-1])
        if valid is None:
            counts = (np.diff(edges)[:, None] * np.diff(columns))[..., None]
        else:
            counts = _sum_blocks(valid[..., None], edges[:-1] - edges[0], columns[:-1])
        means = np.rint(sums / np.maximum(counts, 1)).astype(np.uint8)
        parts.append(np.where(counts > 0, means, np.uint8(NO_DATA)))
    return np.concatenate(parts)


def _edges(old: int, new: int) -> np.ndarray:
    """Where the pixels of a scaled-down side begin in the original one, and where the last ends, (new + 1,)."""
    return np.linspace(0, old, new + 1).astype(np.intp)


def _sum_blocks(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.add.reduceat(np.add.reduceat(pixels, rows, axis=0, dtype=np.uint32), columns, axis=1)


def encode_photo(photo: np.ndarray, most_bytes: int) -> bytes:
    """A photo as a JPEG of at most `most_bytes`: of lower quality, then of half the size, until it is."""
    while True:
        for quality in QUALITIES:
            encoded = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(encoded) <= most_bytes or max(photo.shape[:2]) <= 2:
                return encoded
        half = (max(1, photo.shape[1] // 2), max(1, photo.shape[0] // 2))
        photo = cv2.resize(photo, half, interpolation=cv2.INTER_AREA)


def pack(values: np.ndarray) -> str:
    """The bytes of an array, deflated (zlib), as base64; multi-byte values with the lowest byte first."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 6)).decode()


def pack_bits(masks: np.ndarray) -> str:
    """Masks, (n, h, w) bool, eight pixels a byte, each as the exclusive or with the one before: most change little."""
    bits = np.packbits(masks.reshape(len(masks), -1), axis=1)
    bits[1:] ^= bits[:-1].copy()
    return pack(bits)


def outline(photo: np.ndarray, mask: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """A photo, (h, w, 3) uint8, with the outlines of a mask, (h, w) bool, drawn on a copy."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = photo.copy()
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), 7, cv2.LINE_AA)
    cv2.drawContours(drawn, contours, -1, tuple(color), 4, cv2.LINE_AA)
    return drawn
