"""The architecture of the toy SAM for demos and tests."""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer


def build_vit_demo() -> Sam:
    """Build a SAM of 1.4 M parameters: 512-pixel input, 32 x 32 cells, 96 channels. See demo/README.md."""
    size, channels = 512, 96
    grid = size // 16
    return Sam(
        image_encoder=ImageEncoderViT(
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
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=channels, image_embedding_size=(grid, grid), input_image_size=(size, size), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=384, num_heads=4),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=128,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()
