"""Windows with given features instead of SAM's, masks, rasters and settings that tests share."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from rasters.raster import Raster
from sam.features import WindowFeatures
from utils import Window

CELL = 16  # width of a cell in pixels of the encoder's input, as in every SAM
SIZE = (100, 100)  # 10000 pixels, so that 100 pixels are 1 %

# No deadline: the first example includes imports, and test machines may be busy.
property_test = settings(deadline=None, max_examples=60)
feature_values = st.floats(-8, 8, width=32)


def encoded_window(features: np.ndarray, size: tuple[int, int]) -> WindowFeatures:
    """A window whose cells, including the padding, have these features (C, G, G)."""
    encoder_size = CELL * features.shape[-1]
    scale = encoder_size / max(size)
    input_size = int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)  # as SAM's ResizeLongestSide rounds
    return WindowFeatures.from_embedding(torch.tensor(features[None]).float(), size, input_size, encoder_size)


def quadrants(*vectors: Sequence[float]) -> WindowFeatures:
    """A window of 2 x 2 cells with these features, row by row; a single vector is used for all four."""
    return encoded_window(np.array(vectors * (4 // len(vectors))).T.reshape(-1, 2, 2), SIZE)


def first_rows(pixels: int) -> np.ndarray:
    """The mask of the first `pixels` pixels of a window, row by row; its transpose is column by column."""
    return (np.arange(SIZE[0] * SIZE[1]) < pixels).reshape(SIZE)


def whole(raster: Raster) -> np.ndarray:
    """All pixels of a raster."""
    height, width = raster.shape
    return raster.read(Window(0, 0, width, height))
