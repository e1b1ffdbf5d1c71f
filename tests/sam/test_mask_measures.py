"""mask_measures.py: areas, boxes and stability equal those of the interpolated masks."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score
from torch import Tensor
from torch.nn import functional as F

from sam import mask_measures
from sam.mask_measures import WindowScale
from tests.helpers import property_test

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ROUNDING = 1e-6  # of the largest logit; above the rounding error of two interpolations in single precision


class Geometry(NamedTuple):
    """Sizes of the logits, the encoder's input and the window; scaled as in SAM unless a test overrides it."""

    logits: int
    encoder: int
    scaled: tuple[int, int]
    window: tuple[int, int]


def of_window(height: int, width: int, logits: int = 16) -> Geometry:
    encoder = 4 * logits  # as in every SAM
    scale = encoder / max(height, width)
    return Geometry(logits, encoder, (int(height * scale + 0.5), int(width * scale + 0.5)), (height, width))


WINDOWS = {
    "the encoder's size": of_window(64, 64),
    "twice its size": of_window(128, 128),
    "five times, wide": of_window(160, 320),
    "twelve times, tall": of_window(768, 192),
    "many pixels a logit": of_window(90, 1200, logits=4),  # 300 per logit, above the range of a byte: several blocks
    "whole one way only": of_window(100, 256),
    "a broken factor": of_window(150, 150),
    "a broken factor, wide": of_window(97, 331),
    "a little more": of_window(65, 64),
    "a little less": of_window(63, 60),
    "half": of_window(32, 32),
    "a third, tall": of_window(21, 9),
    "smaller than the logits": of_window(11, 13),
    "two pixels": of_window(1, 2),
    "one pixel": of_window(1, 1),
    "one row": of_window(1, 100),
    "one column": of_window(90, 1),
}


def smooth_logits(geometry: Geometry, masks: int, seed: int, smoothness: int = 3) -> Tensor:
    """Random smooth logits around 0, as SAM's are; some masks are nearly empty or nearly full."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(
        (1, masks, geometry.logits // smoothness + 1, geometry.logits // smoothness + 1), generator=random
    )
    logits = F.interpolate(coarse, (geometry.logits, geometry.logits), mode="bicubic")[0] * 4
    return logits + torch.linspace(-6, 6, masks)[:, None, None]


def enlarged(geometry: Geometry, logits: Tensor) -> Tensor:
    """The logits interpolated to the window's size by segment_anything."""
    scale = SimpleNamespace(image_encoder=SimpleNamespace(img_size=geometry.encoder))
    return Sam.postprocess_masks(scale, logits[:, None], geometry.scaled, geometry.window)[:, 0]


def measure(
    geometry: Geometry, logits: Tensor, threshold: float = 0.0, offset: float = 1.0
) -> mask_measures.MaskMeasures:
    scale = WindowScale(geometry.logits, geometry.encoder, geometry.scaled, geometry.window, CPU)
    return scale.measure(logits, threshold, offset)


def check_exactly(geometry: Geometry, logits: Tensor, threshold: float = 0.0, offset: float = 1.0) -> None:
    """Areas, boxes and stability equal those of the enlarged masks; no pixel may be near a level."""
    full = enlarged(geometry, logits)
    found = measure(geometry, logits, threshold, offset)
    assert found.area_low.tolist() == (full > threshold - offset).sum((1, 2)).tolist()
    assert found.area_high.tolist() == (full > threshold + offset).sum((1, 2)).tolist()
    assert found.boxes.tolist() == batched_mask_to_box(full > threshold).tolist()
    assert {part.dtype for part in found} == {torch.int64}
    stability = calculate_stability_score(full, threshold, offset)
    assert found.stability.dtype == stability.dtype
    torch.testing.assert_close(found.stability, stability, rtol=0, atol=0, equal_nan=True)


def check_but_for_rounding(geometry: Geometry, logits: Tensor, threshold: float = 0.0, offset: float = 1.0) -> None:
    """Areas and boxes lie between those without and those with all pixels near a level."""
    full = enlarged(geometry, logits)
    found = measure(geometry, logits, threshold, offset)
    doubt = ROUNDING * logits.abs().amax(dim=(1, 2), keepdim=True)
    for area, level in ((found.area_low, threshold - offset), (found.area_high, threshold + offset)):
        assert (area >= (full > level + doubt).sum((1, 2))).all()
        assert (area <= (full > level - doubt).sum((1, 2))).all()
    for box, certain, possible in zip(found.boxes, full > threshold + doubt, full > threshold - doubt, strict=True):
        inner, outer = batched_mask_to_box(certain), batched_mask_to_box(possible)
        if certain.any():
            assert (box[:2] <= inner[:2]).all()
            assert (box[2:] >= inner[2:]).all()
        if box.any():  # not empty, or the first pixel alone
            assert (box[:2] >= outer[:2]).all()
            assert (box[2:] <= outer[2:]).all()


def masks_clear_of_levels(geometry: Geometry, logits: Tensor, *levels: float) -> Tensor:
    """The masks without a pixel that rounding could move across a level."""
    full = enlarged(geometry, logits)
    doubt = ROUNDING * logits.abs().amax(dim=(1, 2))
    distance = torch.stack([(full - level).abs().amin((1, 2)) for level in levels]).amin(0)
    return logits[distance > doubt]


# --- By hand ---------------------------------------------------------------------------------------------------------
def test_measures_by_hand() -> None:
    # 4 x 4 logits, an encoder of 4 x 4 pixels, a window of 8 x 8: one interpolation to twice the size. Along an
    # axis, pixels are (l0, 3 l0 + l1, l0 + 3 l1, 3 l1 + l2, ...) / 4. One logit of 16 at row 1, column 2, over -2's:
    # 18 * share - 2, with shares 0, 0, 1/4, 3/4, 3/4, 1/4, 0, 0 of rows, and the same shifted by two of columns.
    logits = torch.full((1, 4, 4), -2.0)
    logits[0, 1, 2] = 16
    found = measure(Geometry(4, 4, (4, 4), (8, 8)), logits, threshold=0, offset=1.5)
    # Shares: 9/16 in the middle 2 x 2 (8.1), 3/16 beside (1.4), 1/16 at the corners (-0.9).
    # Above 0: middle and beside. Above 1.5: the middle. Above -1.5: all of the 4 x 4.
    assert found.area_low.tolist() == [16]
    assert found.area_high.tolist() == [4]
    assert found.stability.tolist() == [0.25]
    assert found.boxes.tolist() == [[3, 1, 6, 4]]


def test_measures_at_the_edge_by_hand() -> None:
    # Logits at the border are extended to the window's edge without interpolation.
    logits = torch.full((1, 4, 4), -10.0)
    logits[0, :, 0] = 10
    found = measure(Geometry(4, 4, (4, 4), (8, 8)), logits, threshold=0, offset=1)
    # Columns 0 and 1 hold 10 and 10 * 3/4 - 10 / 4 = 5; column 2 holds -5.
    assert found.boxes.tolist() == [[0, 0, 1, 7]]
    assert found.area_low.tolist() == found.area_high.tolist() == [16]


@pytest.mark.parametrize("window", WINDOWS)
def test_measures_of_empty_and_full_masks(window: str) -> None:
    geometry = WINDOWS[window]
    height, width = geometry.window
    logits = torch.tensor([-5.0, 5.0, 0.5]).view(3, 1, 1).expand(3, geometry.logits, geometry.logits).contiguous()
    found = measure(geometry, logits)
    everything = height * width
    assert found.area_low.tolist() == [0, everything, everything]
    assert found.area_high.tolist() == [0, everything, 0]
    assert found.boxes.tolist() == [[0, 0, 0, 0], *[[0, 0, width - 1, height - 1]] * 2]
    stability = found.stability.tolist()
    assert np.isnan(stability[0])  # 0 / 0, as SAM's
    assert stability[1:] == [1, 0]


def test_pixels_at_a_level_do_not_count_as_above_it() -> None:
    geometry = WINDOWS["twice its size"]
    logits = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1).expand(3, 16, 16).contiguous()
    found = measure(geometry, logits)
    assert found.area_low.tolist() == [0, 128**2, 128**2]
    assert found.area_high.tolist() == [0, 0, 0]
    assert found.boxes.tolist() == [[0] * 4, [0] * 4, [0, 0, 127, 127]]


def test_measures_of_no_masks() -> None:
    found = measure(WINDOWS["half"], torch.zeros(0, 16, 16))
    assert found.area_low.shape == found.area_high.shape == found.stability.shape == (0,)
    assert found.boxes.shape == (0, 4)


# --- Against segment_anything ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", WINDOWS)
def test_measures_of_smooth_logits(window: str) -> None:
    geometry = WINDOWS[window]
    logits = smooth_logits(geometry, masks=24, seed=1)
    check_but_for_rounding(geometry, logits)
    clear = masks_clear_of_levels(geometry, logits, -1, 0, 1)
    assert len(clear) >= 6  # enough masks for a meaningful comparison
    check_exactly(geometry, clear)


@pytest.mark.parametrize("window", WINDOWS)
def test_measures_of_rough_logits(window: str) -> None:
    # White noise: every block crosses the level, and boxes are large.
    geometry = WINDOWS[window]
    check_but_for_rounding(geometry, smooth_logits(geometry, masks=6, seed=2, smoothness=1))


@pytest.mark.parametrize(("threshold", "offset"), [(0.0, 0.0), (0.0, 3.5), (1.5, 1.0), (-2.0, 0.25), (0.0, -1.0)])
def test_measures_with_other_thresholds_and_offsets(threshold: float, offset: float) -> None:
    geometry = WINDOWS["a broken factor, wide"]
    logits = smooth_logits(geometry, masks=30, seed=3)
    check_but_for_rounding(geometry, logits, threshold, offset)
    clear = masks_clear_of_levels(geometry, logits, threshold - offset, threshold, threshold + offset)
    assert len(clear) > 3
    check_exactly(geometry, clear, threshold, offset)


@pytest.mark.parametrize("magnitude", [1e-6, 1e4])
def test_measures_of_tiny_and_huge_logits(magnitude: float) -> None:
    geometry = WINDOWS["five times, wide"]
    logits = smooth_logits(geometry, masks=20, seed=4)
    clear = masks_clear_of_levels(geometry, logits, -1, 0, 1)
    check_exactly(geometry, magnitude * clear, 0, magnitude)


def test_measures_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = WINDOWS["a broken factor"]
    logits = smooth_logits(geometry, masks=12, seed=5)
    together = measure(geometry, logits)
    alone = [measure(geometry, mask[None]) for mask in logits]
    monkeypatch.setitem(mask_measures.PIXELS_AT_ONCE, "cpu", 1)  # blocks one by one
    for one_by_one in (measure(geometry, logits), [torch.cat(parts) for parts in zip(*alone, strict=True)]):
        for found, expected in zip(one_by_one, together, strict=True):
            assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("min_stability", [0.1, 0.4, 0.9])
def test_min_stability_skips_only_masks_below_it(window: str, min_stability: float) -> None:
    geometry = WINDOWS[window]
    logits = smooth_logits(geometry, masks=24, seed=6)
    scale = WindowScale(geometry.logits, geometry.encoder, geometry.scaled, geometry.window, CPU)
    expected, found = scale.measure(logits, 0, 1), scale.measure(logits, 0, 1, min_stability)
    stable = expected.stability >= min_stability
    assert torch.equal(found.stability >= min_stability, stable)
    for some, all_of_them in zip(found, expected, strict=True):
        assert torch.equal(some[stable], all_of_them[stable])


@pytest.mark.parametrize("window", WINDOWS)
def test_a_mask_is_the_same_with_the_logits_that_its_box_needs(window: str) -> None:
    geometry = WINDOWS[window]
    logits = smooth_logits(geometry, masks=40, seed=7)
    scale = WindowScale(geometry.logits, geometry.encoder, geometry.scaled, geometry.window, CPU)
    kept = torch.arange(len(logits)) % 3 > 0
    parts = scale.cut(logits, kept, scale.measure(logits, 0, 1).boxes[kept])
    assert torch.equal(
        enlarged(geometry, torch.stack([part.whole() for part in parts])) > 0, enlarged(geometry, logits[kept]) > 0
    )


def test_of_a_small_mask_few_logits_are_kept() -> None:
    logits = torch.full((1, 64, 64), -4.0)
    logits[0, 20:25, 40:44] = 4
    scale = WindowScale(64, 256, (256, 256), (512, 512), CPU)
    (part,) = scale.cut(logits, torch.tensor([True]), scale.measure(logits, 0, 1).boxes)
    assert part.logits.shape <= (11, 10)
    assert part.logits._base is None  # a copy, which does not keep the others in memory


def test_unstable_masks_are_not_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.full((1, 16, 16), -0.5)
    logits[:, :4] = 0.5  # an edge at 0, and nothing above 1
    crossed: list[int] = []
    monkeypatch.setattr(WindowScale, "_add_crossed", lambda *arguments: crossed.append(len(arguments[4])))
    scale = WindowScale(16, 64, (64, 64), (128, 128), CPU)
    assert scale.measure(logits, 0, 1, min_stability=0.4).stability.tolist() == [0]
    assert sum(crossed) == 0
    scale.measure(logits, 0, 1)
    assert sum(crossed) > 0


def test_measures_at_the_published_window_size() -> None:
    # 256 logits, interpolated to 1024 and then to 2048 pixels, as with SAM ViT-B.
    geometry = of_window(2048, 2048, logits=256)
    check_but_for_rounding(geometry, smooth_logits(geometry, masks=3, seed=6, smoothness=24))


# Logits of few values, multiples of 1/2, between levels at multiples of 1/2 plus an odd share: with factors that are
# powers of two, every pixel is a sum of multiples of 2**-k and lies away from the levels.
@property_test
@given(
    arrays(np.int8, (2, 8, 8), elements=st.integers(-3, 3)),
    st.sampled_from([(32, 32), (64, 64), (32, 16), (64, 128), (8, 32), (16, 16), (256, 256), (32, 128)]),
    st.sampled_from([0.0, 0.5]),
)
def test_measures_of_any_logits_clear_of_levels_are_exact(
    values: np.ndarray, window: tuple[int, int], threshold: float
) -> None:
    level = threshold + 2**-20 / 3
    check_exactly(of_window(*window, logits=8), torch.from_numpy(values / 2).float(), level, offset=1.0)


@property_test
@given(
    arrays(np.float32, (2, 6, 6), elements=st.floats(-4, 4, width=16)),
    st.tuples(st.integers(2, 90), st.integers(2, 90)),  # a side must be at least one pixel of the encoder's input
    st.sampled_from([(0.0, 1.0), (0.3, 0.7), (0.0, 0.0)]),
)
def test_measures_of_any_logits_and_window(
    values: np.ndarray, window: tuple[int, int], level: tuple[float, float]
) -> None:
    check_but_for_rounding(of_window(*window, logits=6), torch.from_numpy(values), *level)
