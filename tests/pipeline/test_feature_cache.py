from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.feature_cache import FeatureCache
from tests.helpers import encoded_window
from utils import Window

IMAGE, OTHER = Path("a.tif"), Path("b.tif")
WINDOWS = [Window(0, y, 20, 10) for y in range(0, 40, 10)]
CPU = torch.device("cpu")


@pytest.mark.parametrize("memory_bytes", [1, 1 << 20])  # spilled to the disk, and kept in memory
def test_cached_features_are_returned_unchanged(tmp_path: Path, memory_bytes: int) -> None:
    random = np.random.default_rng(0)
    kept = {
        (image, window): encoded_window(random.normal(size=(3, 4, 4)), (10, 20))
        for window in WINDOWS
        for image in (IMAGE, OTHER)
    }
    with FeatureCache(tmp_path, WINDOWS, memory_bytes) as cache:
        for key, features in kept.items():
            cache.keep(*key, features)
        for key in reversed(kept):
            found = cache.get(*key, CPU)
            assert torch.equal(found.embedding, kept[key].embedding)
            assert found.input_size == kept[key].input_size
            assert found.rows.tolist() == kept[key].rows.tolist()
            assert found.columns.tolist() == kept[key].columns.tolist()
        assert not list(tmp_path.iterdir())  # the file has no name


def test_windows_that_the_next_stage_lacks_are_not_cached(tmp_path: Path) -> None:
    with FeatureCache(tmp_path, WINDOWS[:1]) as cache:
        for window in WINDOWS:
            cache.keep(IMAGE, window, encoded_window(np.zeros((1, 2, 2)), (10, 20)))
        assert [cache.has(IMAGE, window) for window in WINDOWS] == [True, False, False, False]
        assert not cache.has(OTHER, WINDOWS[0])
