"""Keeps the features that stage 1 encoded for stage 2: in memory up to a limit, then in a temporary file."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from sam.features import WindowFeatures
from utils import Window

MEMORY_BYTES = 64 << 20  # of an event's features in memory: 16 encoded images of a window with ViT-B


class FeatureCache:
    """The features of an event's images in the windows common to both stages; a context manager."""

    def __init__(self, folder: Path, windows: Iterable[Window], memory_bytes: int = MEMORY_BYTES) -> None:
        """`windows`: those common to both stages. `folder`: for the temporary file, used above `memory_bytes`."""
        self._windows = frozenset(windows)
        self._kept: dict[tuple[Path, Window], tuple[WindowFeatures, int]] = {}  # without embedding; offset in the file
        # Raw float32. The file has no name, so a killed process leaves nothing behind.
        self._file = tempfile.SpooledTemporaryFile(memory_bytes, dir=str(folder))  # noqa: SIM115

    def __enter__(self) -> "FeatureCache":
        """Return the cache."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop all features."""
        self.close()

    def close(self) -> None:
        """Drop all features."""
        self._file.close()

    def keep(self, image: Path, window: Window, features: WindowFeatures) -> None:
        """Keep the features of a window of an image, if the window is common to both stages."""
        if window in self._windows:
            offset = self._file.seek(0, 2)
            self._file.write(features.embedding.cpu().numpy().tobytes())
            shape = torch.empty(features.embedding.shape, device="meta")
            self._kept[image, window] = (replace(features, embedding=shape), offset)

    def has(self, image: Path, window: Window) -> bool:
        """Return whether the cache holds the features of this window of an image."""
        return (image, window) in self._kept

    def get(self, image: Path, window: Window, device: torch.device) -> WindowFeatures:
        """Return the cached features of a window of an image, moved to the device."""
        features, offset = self._kept[image, window]
        shape = features.embedding.shape
        self._file.seek(offset)
        values = torch.frombuffer(bytearray(self._file.read(4 * shape.numel())), dtype=torch.float32)
        return replace(features, embedding=values.view(shape).to(device))
