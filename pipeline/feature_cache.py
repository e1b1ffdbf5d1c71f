"""Keeps the features that stage 1 encoded for stage 2, a few in memory, the others in a temporary file."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from sam.features import WindowFeatures
from utils import Window

MEMORY_BYTES = 256 << 20  # of an event's features held in memory: 64 windows' images with ViT-B


class FeatureCache:
    """The features of an event's images in those windows that both stages share; a context manager."""

    def __init__(self, folder: Path, windows: Iterable[Window], memory_bytes: int = MEMORY_BYTES) -> None:
        """`folder`: where the temporary file goes that features spill to, beyond `memory_bytes` of them.

        `windows`: the only ones worth keeping.
        """
        self._windows = frozenset(windows)
        self._kept: dict[tuple[Path, Window], tuple[WindowFeatures, int]] = {}  # without embedding; place in the file
        # Of raw float32. It has no name, so that nothing of it can be left behind.
        self._file = tempfile.SpooledTemporaryFile(memory_bytes, dir=str(folder))  # noqa: SIM115

    def __enter__(self) -> "FeatureCache":
        """Nothing to prepare."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget all features."""
        self._file.close()

    def keep(self, image: Path, window: Window, features: WindowFeatures) -> None:
        """Keep the features of an image's window, where the other stage has the same window."""
        if window in self._windows:
            place = self._file.seek(0, 2)
            self._file.write(features.embedding.cpu().numpy().tobytes())
            shape = torch.empty(features.embedding.shape, device="meta")
            self._kept[image, window] = (replace(features, embedding=shape), place)

    def has(self, image: Path, window: Window) -> bool:
        """Whether these features are kept."""
        return (image, window) in self._kept

    def get(self, image: Path, window: Window, device: torch.device) -> WindowFeatures:
        """Kept features, moved to the device."""
        features, place = self._kept[image, window]
        shape = features.embedding.shape
        self._file.seek(place)
        values = torch.frombuffer(bytearray(self._file.read(4 * shape.numel())), dtype=torch.float32)
        return replace(features, embedding=values.view(shape).to(device))
