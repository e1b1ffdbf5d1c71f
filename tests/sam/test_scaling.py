import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segment_anything.utils.transforms import ResizeLongestSide

from demo.scenes import make_event
from sam.scaling import scale_longest_side
from tests.helpers import property_test

RNG = np.random.default_rng(5)
SCENE = make_event(seed=3, category=4, size=300, historical_dates=1).monitor


def assert_equals_segment_anything(image: np.ndarray, longest_side: int) -> None:
    expected = ResizeLongestSide(longest_side).apply_image(image)
    scaled = scale_longest_side(image, longest_side)
    np.testing.assert_array_equal(scaled, expected, strict=True)
    assert scaled.flags.c_contiguous


@pytest.mark.parametrize("shape", [(2048, 2048), (2048, 1500), (2048, 998), (998, 2048), (1024, 1024)])
def test_published_windows_are_scaled_as_by_segment_anything(shape: tuple[int, int]) -> None:
    for image in (RNG.integers(0, 256, (*shape, 3), np.uint8), np.resize(SCENE, (*shape, 3))):
        assert_equals_segment_anything(np.ascontiguousarray(image), 1024)


@property_test
@given(arrays(np.uint8, st.tuples(st.integers(5, 20), st.integers(5, 20), st.just(3))), st.integers(4, 12))
def test_images_of_any_size_are_scaled_as_by_segment_anything(image: np.ndarray, longest_side: int) -> None:
    assert_equals_segment_anything(image, longest_side)


@pytest.mark.parametrize("longest_side", [1, 2, 3, 8, 33, 64])
def test_squares_are_halved_as_by_segment_anything(longest_side: int) -> None:
    for _ in range(100):  # most pixels of small squares lie at a border
        image = RNG.integers(0, 256, (2 * longest_side, 2 * longest_side, 3), np.uint8)
        assert_equals_segment_anything(image, longest_side)
