"""Decodes point prompts with SAM's own weights; computes the part that all prompts share once per image.

SAM's mask decoder repeats the image for every prompt and projects each copy to keys, values and queries. Here the
first block's projections are computed once per image. In later blocks the image differs between prompts, but only a few
tokens attend to it. It costs far less to project these tokens into the image's space instead:
`(t Wq) (x Wk)' = (t Wq Wk') x'`. The results equal SAM's, except for the order of summation.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sam.compilation import compile_once

USED_TOKENS = [0, 2, 3, 4]  # the predicted IoU, and the three masks of a point; 1 is the mask of several prompts


class ImageSide(NamedTuple):
    """Arrays that all prompts of one image share. N = G * G feature cells of C channels; h heads of d channels."""

    source: Tensor  # (N, C): the embedding, plus SAM's embedding of "no mask prompt"
    first_queries: Tensor  # (h, N, d)
    first_keys: Tensor  # (h, N, d)
    first_values: Tensor  # (h, N, d)


class DecodedMasks(NamedTuple):
    """The n masks of a batch of points that passed the IoU filter, ordered by point, then by mask."""

    logits: Tensor  # (n, 4 G, 4 G) float32
    predicted_iou: Tensor  # (n,) float32
    point: Tensor  # (n,) int64: index of the point in the batch


class PromptDecoder:
    """SAM's prompt encoder and mask decoder for one foreground point per prompt, three masks per point."""

    def __init__(self, prompt_encoder: Any, mask_decoder: Any, compiled: bool = False) -> None:
        """`compiled`: compile the transformer and the upscaling with `torch.compile`, for one number of points."""
        self._prompt_encoder = prompt_encoder
        self._decoder = mask_decoder
        self._blocks = list(mask_decoder.transformer.layers)
        self._compiled = compiled
        self._most_points = 0  # of a batch so far
        transform, upscale = self._two_way_transformer, self._output_upscaling
        device = mask_decoder.iou_token.weight.device
        self._transform = compile_once(transform, device) if compiled else transform
        self._upscale = compile_once(upscale, device) if compiled else upscale
        self._output_tokens = torch.cat([mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight]).detach()
        # (N, C): positional encoding of the feature cells
        self._position = prompt_encoder.get_dense_pe()[0].flatten(1).T.detach().contiguous()

    def image_side(self, embedding: Tensor) -> ImageSide:
        """Compute the arrays that all prompts share. `embedding`: (C, G, G), from SAM's image encoder."""
        source = embedding.flatten(1).T + self._prompt_encoder.no_mask_embed.weight
        positioned = source + self._position
        first = self._blocks[0]
        return ImageSide(
            source,
            _heads(first.cross_attn_image_to_token, first.cross_attn_image_to_token.q_proj(positioned)),
            _heads(first.cross_attn_token_to_image, first.cross_attn_token_to_image.k_proj(positioned)),
            _heads(first.cross_attn_token_to_image, first.cross_attn_token_to_image.v_proj(source)),
        )

    def decode(self, image: ImageSide, points: Tensor, iou_threshold: float) -> DecodedMasks:
        """Predict the masks of B points and keep those whose predicted IoU is above the threshold.

        `points`: (B, 2), x and y in pixels of the encoder's input. A threshold of 0 or less keeps all, as SAM does.
        """
        count = len(points)
        if self._compiled:  # a smaller batch is filled up, as another number of points would be compiled, too
            self._most_points = max(self._most_points, count)
            points = torch.cat([points, points[-1:].expand(self._most_points - count, -1)])
        labels = torch.ones((len(points), 1), dtype=torch.int, device=points.device)
        prompts, _ = self._prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        tokens = torch.cat([self._output_tokens.expand(len(points), -1, -1), prompts], dim=1)
        tokens, pixels = self._transform(image, tokens)
        predicted_iou = self._decoder.iou_prediction_head(tokens[:, 0])[:, 1:].float()
        kept = predicted_iou > iou_threshold if iou_threshold > 0 else torch.ones_like(predicted_iou, dtype=torch.bool)
        point, mask = kept[:count].nonzero(as_tuple=True)
        return DecodedMasks(self._upscale(tokens, pixels)[point, mask], predicted_iou[point, mask], point)

    def _two_way_transformer(self, image: ImageSide, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run SAM's two-way transformer. `tokens`: (B, T, C). Returns USED_TOKENS, (B, 4, C), and pixels, (B, N, C)."""
        token_position = tokens
        pixels = image.source  # (N, C) in the first block, (B, N, C) in the others
        positioned = pixels
        for number, block in enumerate(self._blocks):
            if block.skip_first_layer_pe:
                tokens = block.self_attn(q=tokens, k=tokens, v=tokens)
            else:
                query = tokens + token_position
                tokens = tokens + block.self_attn(q=query, k=query, v=tokens)
            tokens = block.norm1(tokens)
            read = block.cross_attn_token_to_image
            if number == 0:
                attended = _attend_to_shared_image(read, tokens + token_position, image)
            else:
                attended = _attend_to_image(read, tokens + token_position, positioned, pixels)
            tokens = block.norm2(tokens + attended)
            tokens = block.norm3(tokens + block.mlp(tokens))
            write = block.cross_attn_image_to_token
            shared_queries = image.first_queries if number == 0 else None
            weights, written = _attend_to_tokens(write, tokens + token_position, tokens, positioned, shared_queries)
            pixels = block.norm4(torch.baddbmm(pixels, weights, written))
            positioned = pixels + self._position
        last = self._decoder.transformer.final_attn_token_to_image
        tokens, token_position = tokens[:, USED_TOKENS], token_position[:, USED_TOKENS]
        tokens = tokens + _attend_to_image(last, tokens + token_position, positioned, pixels)
        return self._decoder.transformer.norm_final_attn(tokens), pixels

    def _output_upscaling(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Return the logits of the three masks of every point, (B, 3, 4 G, 4 G) float32."""
        first, norm, activation, second, _ = self._decoder.output_upscaling
        # A transposed convolution of stride 2 and kernel 2 is one linear map from a pixel to four: they do not overlap.
        upscaled = activation(_layer_norm_2d(norm, _upscale_2x(first, pixels)))
        upscaled = activation(_upscale_2x(second, upscaled))  # (B, N * 4 * 4, C / 8)
        networks = self._decoder.output_hypernetworks_mlps[1:]
        hyper = torch.stack([network(tokens[:, 1 + number]) for number, network in enumerate(networks)], dim=2)
        return _by_row_and_column((upscaled @ hyper).float())


def _heads(attention: Any, projected: Tensor) -> Tensor:
    """Split channels into heads: (..., n, h * d) -> (..., h, n, d)."""
    return projected.unflatten(-1, (attention.num_heads, -1)).transpose(-2, -3)


def _attend_to_shared_image(attention: Any, queries: Tensor, image: ImageSide) -> Tensor:
    """Attend from tokens to the image that all prompts share. `queries`: (B, T, C). Returns (B, T, C)."""
    query = _heads(attention, attention.q_proj(queries))  # (B, h, T, d)
    batch, heads, tokens, depth = query.shape
    rows = query.transpose(0, 1).reshape(heads, batch * tokens, depth)  # all prompts in one product, with shared keys
    weights = torch.softmax(rows @ image.first_keys.transpose(1, 2) / depth**0.5, dim=-1)
    read = (weights @ image.first_values).view(heads, batch, tokens, depth)
    return attention.out_proj(read.permute(1, 2, 0, 3).flatten(2))


def _attend_to_image(attention: Any, queries: Tensor, positioned: Tensor, pixels: Tensor) -> Tensor:
    """Attend from tokens to one image per prompt. `queries`: (B, T, C); `positioned`, `pixels`: (B, N, C)."""
    query = _heads(attention, attention.q_proj(queries))  # (B, h, T, d)
    heads, tokens, depth = query.shape[1:]
    key_weight = attention.k_proj.weight.view(heads, depth, -1)
    value_weight = attention.v_proj.weight.view(heads, depth, -1)
    # Without the keys' bias: it adds the same number to all scores of a query, which does not change the softmax.
    rows = (query @ key_weight / depth**0.5).flatten(1, 2)  # (B, h * T, C)
    weights = torch.softmax(rows @ positioned.transpose(1, 2), dim=-1)
    read = (weights @ pixels).unflatten(1, (heads, tokens)) @ value_weight.transpose(1, 2)
    return attention.out_proj(read.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def _attend_to_tokens(
    attention: Any, keys: Tensor, values: Tensor, positioned: Tensor, shared_queries: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attend from images to their tokens. `keys`, `values`: (B, T, C); `positioned`: (B, N, C).

    Returns two factors, (B, N, h * T) and (B, h * T, C), whose product is what the images read.
    """
    key = _heads(attention, attention.k_proj(keys))  # (B, h, T, d)
    value = _heads(attention, attention.v_proj(values))
    heads, tokens, depth = key.shape[1:]
    key = key / depth**0.5
    if shared_queries is None:
        query_weight = attention.q_proj.weight.view(heads, depth, -1)
        query_bias = attention.q_proj.bias.view(heads, depth, 1)
        rows = (key @ query_weight).flatten(1, 2)  # (B, h * T, C)
        scores = (rows @ positioned.transpose(1, 2)).unflatten(1, (heads, tokens)) + key @ query_bias
    else:
        scores = key @ shared_queries.transpose(1, 2)
    weights = torch.softmax(scores, dim=2)  # (B, h, T, N): pixels last, so that the softmax works on contiguous rows
    output_weight = attention.out_proj.weight.T.reshape(heads, depth, -1)
    # The weights of each head sum to 1, so each token's row can carry its share of the bias.
    written = (value @ output_weight + attention.out_proj.bias / heads).flatten(1, 2)
    return weights.flatten(1, 2).transpose(1, 2), written


def _upscale_2x(convolution: Any, pixels: Tensor) -> Tensor:
    """Apply a transposed convolution, stride and kernel 2: (B, n, C) -> (B, n * 4, C'), the four pixels row by row."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * C', C)
    return F.linear(pixels, weight, convolution.bias.repeat(4)).unflatten(-1, (4, -1)).flatten(1, 2)


def _by_row_and_column(logits: Tensor) -> Tensor:
    """Order the logits of m masks by row and column: (B, N * 4 * 4, m) -> (B, m, 4 G, 4 G).

    They come by row and column of the cell, then of the half cell in it, then of the quarter cell.
    """
    grid = int((logits.shape[1] // 16) ** 0.5)
    found = logits.view(len(logits), grid, grid, 2, 2, 2, 2, -1)
    ordered = logits.new_empty(len(logits), logits.shape[-1], grid, 2, 2, grid, 2, 2)
    for half in range(2):  # a copy per column of a cell runs along rows; a copy of all would run over pairs of logits
        for quarter in range(2):
            ordered[..., half, quarter] = found[:, :, :, :, half, :, quarter].permute(0, 5, 1, 3, 4, 2)
    return ordered.view(*ordered.shape[:2], 4 * grid, 4 * grid)


def _layer_norm_2d(norm: Any, pixels: Tensor) -> Tensor:
    return F.layer_norm(pixels, pixels.shape[-1:], norm.weight, norm.bias, norm.eps)
