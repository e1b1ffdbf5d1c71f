"""Windows with chosen features, which stand in for SAM's encoder; masks, rasters and settings that tests share."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from rasters.raster import Raster
from sam.features import WindowFeatures
from utils import Window

CELL = 16  # pixels of the encoder's input a cell is wide, as in every SAM
SIZE = (100, 100)  # 10000 pixels, so that areas read as shares

# No deadline: the first example pays for imports and a busy machine for everything else.
property_test = settings(deadline=None, max_examples=60)
feature_values = st.floats(-8, 8, width=32)


def encoded_window(features: np.ndarray, size: tuple[int, int]) -> WindowFeatures:
    """A window whose cells, those of the padding included, have these features (C, G, G)."""
    encoder_size = CELL * features.shape[-1]
    scale = encoder_size / max(size)
    input_size = int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)  # as SAM's ResizeLongestSide rounds
    return WindowFeatures.from_embedding(torch.tensor(features[None]).float(), size, input_size, encoder_size)


def quadrants(*vectors: Sequence[float]) -> WindowFeatures:
    """A window of 2 x 2 cells with these features, row by row; a single vector is all four's."""
    return encoded_window(np.array(vectors * (4 // len(vectors))).T.reshape(-1, 2, 2), SIZE)


def first_rows(pixels: int) -> np.ndarray:
    """The mask of the first so many pixels of a window, row by row; its transpose goes column by column."""
    return (np.arange(SIZE[0] * SIZE[1]) < pixels).reshape(SIZE)


def whole(raster: Raster) -> np.ndarray:
    """All pixels of a raster."""
    height, width = raster.shape
    return raster.read(Window(0, 0, width, height))
