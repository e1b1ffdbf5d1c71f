"""Puts SAM's prompt encoder and mask decoder behind an image encoder."""

from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn


def assemble_sam(image_encoder: nn.Module, size: int, channels: int, mlp_dim: int, heads: int, iou_dim: int) -> Sam:
    """Return a SAM in evaluation mode, with random weights.

    `size`: side of the encoder's input, pixels; it returns a cell of `channels` per 16 x 16 pixels. `mlp_dim`, `heads`:
    of the decoder's transformer. `iou_dim`: hidden channels of the prediction of the IoU.
    """
    cells = (size // 16, size // 16)
    return Sam(
        image_encoder=image_encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=channels, image_embedding_size=cells, input_image_size=(size, size), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=mlp_dim, num_heads=heads),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=iou_dim,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()
