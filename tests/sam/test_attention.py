"""attention.py: equals segment_anything's attention, with random relative positions."""

import copy

import pytest
import torch
from torch import Tensor

from sam import attention as encoder_attention
from sam.attention import FusedAttention, fuse_attention
from tests.tiny_sam import SIZE, tiny_sam

pytestmark = pytest.mark.usefixtures("one_thread")


def encoded(encoder: torch.nn.Module, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder(pixels)


@pytest.fixture(scope="module")
def encoders() -> tuple[torch.nn.Module, torch.nn.Module]:
    """An encoder of segment_anything, and a copy with fused attention."""
    stock = tiny_sam().image_encoder
    fused = copy.deepcopy(stock)
    fuse_attention(fused)
    return stock, fused


# With less memory than one head needs, heads are computed one by one; else all four, or groups of three and one, in
# global attention: 4 bytes, a batch of `batch`, 16 tokens squared.
@pytest.mark.parametrize("heads_at_once", [None, 0, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_fused_encoder_equals_the_stock_one(
    encoders: tuple[torch.nn.Module, torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    heads_at_once: int | None,
) -> None:
    if heads_at_once is not None:
        monkeypatch.setitem(encoder_attention.BIAS_BYTES, "cpu", heads_at_once * 4 * batch * 16**2)
    pixels = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(batch))
    expected, found = (encoded(encoder, pixels) for encoder in encoders)
    assert expected.std() > 0.1  # the comparison is meaningful
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("heads_at_once", [1, 2, 3, 4])
def test_attention_does_not_depend_on_the_group_size(monkeypatch: pytest.MonkeyPatch, heads_at_once: int) -> None:
    attention = tiny_sam().image_encoder.blocks[2].attn
    tokens = torch.randn(2, 4, 4, 32, generator=torch.Generator().manual_seed(1))
    sizes: list[int] = []
    own_bias = FusedAttention._bias

    def bias(self: FusedAttention, query: Tensor, height: int, width: int) -> Tensor:
        sizes.append(query.shape[1])
        return own_bias(self, query, height, width)

    monkeypatch.setattr(FusedAttention, "_bias", bias)
    monkeypatch.setitem(encoder_attention.BIAS_BYTES, "cpu", heads_at_once * 4 * 2 * 16**2)
    found = encoded(FusedAttention(attention, 4), tokens)
    assert sizes == {1: [1] * 4, 2: [2, 2], 3: [3, 1], 4: [4]}[heads_at_once]
    torch.testing.assert_close(found, encoded(attention, tokens), rtol=1e-5, atol=1e-5)


def test_relative_positions_affect_the_result() -> None:
    # Otherwise the tests above would pass without relative positions.
    attention = tiny_sam().image_encoder.blocks[2].attn
    tokens = torch.randn(1, 4, 4, 32, generator=torch.Generator().manual_seed(1))
    fused = FusedAttention(attention, 4)
    with_positions = encoded(fused, tokens)
    fused.row_table.zero_()
    assert (encoded(fused, tokens) - with_positions).abs().max() > 1e-2


def test_fusing_does_not_change_the_weights() -> None:
    encoder = tiny_sam().image_encoder
    before = copy.deepcopy(encoder.state_dict())
    fuse_attention(encoder)
    after = encoder.state_dict()
    assert all(isinstance(block.attn, FusedAttention) for block in encoder.blocks)
    assert set(after) == {name for name in before if "rel_pos" not in name}  # replaced by tables that are not saved
    assert all(torch.equal(after[name], before[name]) for name in after)
