"""The architecture of MobileSAM: SAM with a TinyViT as its image encoder.

References: MobileSAM (Zhang et al., 2023, arXiv:2306.14289), TinyViT (Wu et al., ECCV 2022). The parameters have the
names of the authors' code, so that their weights can be loaded. Only what inference needs is here: no dropout, no
stochastic depth, no classifier.
"""

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from sam.assemble import assemble_sam

INPUT, CHANNELS = 1024, 256
DIMENSIONS = (64, 128, 160, 320)  # channels of the four layers
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)  # cells per side within which a block attends; not used in the first layer
EXPANSION = 4  # of the hidden channels


def build_vit_t() -> Sam:
    """Build MobileSAM: 10 M parameters, 1024-pixel input, 64 x 64 cells, 256 channels."""
    return assemble_sam(TinyViT(), INPUT, CHANNELS, mlp_dim=2048, heads=8, iou_dim=256)


class TinyViT(nn.Module):
    """The image encoder: (B, 3, 1024, 1024) float32 to (B, 256, 64, 64)."""

    img_size = INPUT

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(DIMENSIONS[0])
        self.layers = nn.ModuleList(Layer(number) for number in range(len(DIMENSIONS)))
        self.neck = nn.Sequential(
            nn.Conv2d(DIMENSIONS[-1], CHANNELS, 1, bias=False),
            LayerNorm2d(CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(CHANNELS),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode preprocessed images."""
        features = self.patch_embed(pixels)
        for layer in self.layers:
            features = layer(features)
        return self.neck(features)


class ConvNorm(nn.Sequential):
    """A convolution without bias, and a batch norm."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)


class PatchEmbedding(nn.Module):
    """Two convolutions that make one cell of 4 x 4 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, channels // 2, kernel=3, stride=2),
            nn.GELU(),
            ConvNorm(channels // 2, channels, kernel=3, stride=2),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, C, H / 4, W / 4)."""
        return self.seq(pixels)


class Layer(nn.Module):
    """Blocks at one size, then, except in the last layer, a change to the next layer's size and channels."""

    def __init__(self, number: int) -> None:
        super().__init__()
        channels = DIMENSIONS[number]
        self.blocks = nn.ModuleList(
            ConvBlock(channels) if number == 0 else AttentionBlock(channels, HEADS[number], WINDOWS[number])
            for _ in range(DEPTHS[number])
        )
        is_last = number + 1 == len(DIMENSIONS)
        # MobileSAM keeps 64 x 64 cells in the last layer, where TinyViT halves their number per side.
        halves = number + 2 < len(DIMENSIONS)
        self.downsample = None if is_last else Downsampling(channels, DIMENSIONS[number + 1], 2 if halves else 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to the next layer's shape."""
        for block in self.blocks:
            features = block(features)
        return features if self.downsample is None else self.downsample(features)


class Downsampling(nn.Module):
    """Changes the channels, then halves the height and width, if `stride` is 2."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels_in, channels_out)
        self.conv2 = ConvNorm(channels_out, channels_out, kernel=3, stride=stride, groups=channels_out)
        self.conv3 = ConvNorm(channels_out, channels_out)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(features)))))


class ConvBlock(nn.Module):
    """An inverted bottleneck of convolutions (MBConv)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = EXPANSION * channels
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, kernel=3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return F.gelu(features + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(features))))))


class AttentionBlock(nn.Module):
    """Attention within windows, a convolution between neighbouring cells, and an MLP per cell."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(channels, heads, window)
        self.mlp = Mlp(channels)
        self.local_conv = ConvNorm(channels, channels, kernel=3, groups=channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        cells = features.permute(0, 2, 3, 1)  # (B, H, W, C)
        cells = cells + self._attend(cells)
        cells = self.local_conv(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (cells + self.mlp(cells)).permute(0, 3, 1, 2)

    def _attend(self, cells: Tensor) -> Tensor:
        batch, height, width, channels = cells.shape
        side = self.window
        # Padding, below and to the right, is attended to like any cell, as in the authors' code.
        padded = F.pad(cells, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        windows = padded.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        attended = self.attn(windows.reshape(-1, side * side, channels))
        attended = attended.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return attended.reshape(padded.shape)[:, :height, :width]


class WindowAttention(nn.Module):
    """Attention among the cells of windows, with a learned bias per head and distance: (n, N, C) to (n, N, C)."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        # The authors' code caches the biases of all pairs of cells when the model is put into evaluation mode, so that
        # weights loaded later have no effect on them. Here they are looked up at every call.
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.pairs = nn.Buffer(_distances(window), persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """Attend within each window."""
        qkv = self.qkv(self.norm(cells)).unflatten(2, (self.heads, 3, -1))  # (n, N, h, 3, d)
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=self.attention_biases[:, self.pairs])
        return self.proj(attended.transpose(1, 2).flatten(2))


def _distances(side: int) -> Tensor:
    """Return the number of the distance between each pair of a window's cells, (N, N) int64.

    Distances, in rows and columns, are numbered in the order in which they occur from the first cell on: row by row.
    """
    row, column = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
    return (row[:, None] - row).abs() * side + (column[:, None] - column).abs()


class Mlp(nn.Module):
    """A norm and two linear layers per cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, EXPANSION * channels)
        self.fc2 = nn.Linear(EXPANSION * channels, channels)

    def forward(self, cells: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        return self.fc2(F.gelu(self.fc1(self.norm(cells))))
