"""Fused attention for SAM's image encoder: same results, without several copies of the (tokens x tokens) scores."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Relative-position bias held at once: heads are processed in groups below this limit, but at least one head. A GPU
# needs several heads at a time to be busy; on a CPU a small bias is faster.
BIAS_BYTES = {"cuda": 256 << 20, "cpu": 64 << 20}


class FusedAttention(nn.Module):
    """Replacement for an attention module of segment_anything's image encoder; uses that module's weights.

    Relative positions are passed to torch's `scaled_dot_product_attention` as an additive bias.
    """

    def __init__(self, attention: Any, size: int) -> None:
        """Wrap the `attention` of an encoder block whose tokens form squares of `size` x `size`."""
        super().__init__()
        self.qkv, self.proj, self.heads = attention.qkv, attention.proj, attention.num_heads
        distance = torch.arange(size)[:, None] - torch.arange(size)[None, :] + size - 1
        # (size, size, d): relative-position embedding for a query in row q and a key in row k, and the same for columns
        distance = distance.to(attention.rel_pos_h.device)
        self.row_table = nn.Buffer(attention.rel_pos_h.detach()[distance], persistent=False)
        self.column_table = nn.Buffer(attention.rel_pos_w.detach()[distance], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the attention to `x`, (B, size, size, C); return the same shape."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, h, N, d) each
        group = max(1, BIAS_BYTES[x.device.type] // (4 * batch * (height * width) ** 2))
        attended = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(q, height, width))
            for q, k, v in zip(query.split(group, 1), key.split(group, 1), value.split(group, 1), strict=True)
        ]
        return self.proj(torch.cat(attended, dim=1).transpose(1, 2).reshape(batch, height, width, channels))

    def _bias(self, query: Tensor, height: int, width: int) -> Tensor:
        """Return the bias that relative positions add to the scores, (B, h, N, N). `query`: (B, h, N, d)."""
        placed = query.unflatten(2, (height, width))
        by_row = torch.einsum("bhyxd,ykd->bhyxk", placed, self.row_table)
        by_column = torch.einsum("bhyxd,xkd->bhyxk", placed, self.column_table)
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)


def fuse_attention(encoder: Any) -> None:
    """Replace the attention of every block by `FusedAttention`. `encoder`: a SAM encoder with relative positions."""
    for block in encoder.blocks:
        size = block.window_size or encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
        block.attn = FusedAttention(block.attn, size)
