"""A small SAM with random weights and all parts of the official models."""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

SIZE = 64  # pixels of the encoder's input: 4 x 4 cells


def tiny_sam(seed: int = 0, blocks: int = 2) -> Sam:
    """Two encoder blocks attend within windows, the last one globally; `blocks` are the decoder's."""
    torch.manual_seed(seed)
    grid, channels = SIZE // 16, 16
    model = Sam(
        image_encoder=ImageEncoderViT(
            depth=3,
            embed_dim=32,
            img_size=SIZE,
            num_heads=4,
            patch_size=16,
            qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_abs_pos=True,
            use_rel_pos=True,
            window_size=3,  # does not divide 4: padded, as 14 does 64
            global_attn_indexes=(2,),
            out_chans=channels,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=channels, image_embedding_size=(grid, grid), input_image_size=(SIZE, SIZE), mask_in_chans=4
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=blocks, embedding_dim=channels, mlp_dim=24, num_heads=2),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=12,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()
    with torch.no_grad():
        for weights in model.parameters():
            # Many parameters, such as relative positions and biases of norms, are initialized to 0 or 1: randomize all.
            weights += torch.randn_like(weights) * 0.3
        # SAM filters by predicted IoU only for thresholds above 0: make all predictions positive.
        model.mask_decoder.iou_prediction_head.layers[-1].bias += 10
    return model
