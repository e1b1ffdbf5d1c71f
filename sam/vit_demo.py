"""The architecture of the small SAM that the tests run."""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, Sam

from sam.assemble import assemble_sam


def build_vit_demo() -> Sam:
    """Build a SAM of 1.4 M parameters: 512-pixel input, 32 x 32 cells, 96 channels. See tests/toy_sam/README.md."""
    size, channels = 512, 96
    encoder = ImageEncoderViT(
        depth=4,
        embed_dim=128,
        img_size=size,
        mlp_ratio=4,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=4,
        patch_size=16,
        qkv_bias=True,
        use_abs_pos=False,
        use_rel_pos=True,
        global_attn_indexes=(),
        window_size=8,
        out_chans=channels,
    )
    return assemble_sam(encoder, size, channels, mlp_dim=384, heads=4, iou_dim=128)
