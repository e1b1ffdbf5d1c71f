"""prompt_decoder.py: equals segment_anything's prompt encoder and mask decoder."""

import pytest
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from sam.prompt_decoder import DecodedMasks, PromptDecoder
from tests.tiny_sam import tiny_sam

pytestmark = pytest.mark.usefixtures("one_thread")


def stock(model: Sam, embedding: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, 3, 4 G, 4 G) and predicted IoU (B, 3) of segment_anything."""
    labels = torch.ones((len(points), 1), dtype=torch.int)
    with torch.no_grad():
        sparse, dense = model.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        return model.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )


def decode(model: Sam, embedding: Tensor, points: Tensor, threshold: float) -> DecodedMasks:
    decoder = PromptDecoder(model.prompt_encoder, model.mask_decoder)
    with torch.no_grad():
        return decoder.decode(decoder.image_side(embedding), points, threshold)


@pytest.fixture(scope="module", params=["demo", "tiny", "tiny, one block", "tiny, three blocks"])
def model(request: pytest.FixtureRequest, demo_model: Sam) -> Sam:
    """The demo SAM, and SAMs with random weights and one, two or three decoder blocks."""
    if request.param == "demo":
        return demo_model
    return tiny_sam(blocks={"tiny": 2, "tiny, one block": 1, "tiny, three blocks": 3}[request.param])


def image_and_points(model: Sam, number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random embedding, and random points in the encoder's input, including two of its corners."""
    random = torch.Generator().manual_seed(seed)
    grid, size = model.prompt_encoder.image_embedding_size[0], model.image_encoder.img_size
    points = torch.rand((number, 2), generator=random, dtype=torch.float64) * size
    points[:2] = torch.tensor([[0, 0], [size, size]])[:number]
    return torch.randn((model.prompt_encoder.embed_dim, grid, grid), generator=random), points


def check_masks(found: DecodedMasks, logits: Tensor, predicted_iou: Tensor, point: list[int], mask: list[int]) -> None:
    """Assert that the given masks of the given points were found."""
    assert found.point.tolist() == point
    assert found.logits.dtype == found.predicted_iou.dtype == torch.float32
    torch.testing.assert_close(found.predicted_iou, predicted_iou[point, mask], rtol=1e-4, atol=1e-5)
    scale = logits.abs().max().item()
    torch.testing.assert_close(found.logits, logits[point, mask], rtol=0, atol=1e-5 * max(scale, 1))


@pytest.mark.parametrize("number", [1, 2, 9])
@pytest.mark.parametrize("threshold", [0, -1.0])
def test_without_a_threshold_all_masks_are_kept(model: Sam, number: int, threshold: float) -> None:
    embedding, points = image_and_points(model, number)
    logits, predicted_iou = stock(model, embedding, points)
    everything = [(point, mask) for point in range(number) for mask in range(3)]
    found = decode(model, embedding, points, threshold)
    check_masks(found, logits, predicted_iou, [point for point, _ in everything], [mask for _, mask in everything])


@pytest.mark.parametrize("rank", [1, 4, 13, 26])
def test_masks_above_the_threshold_are_kept_in_order(model: Sam, rank: int) -> None:
    embedding, points = image_and_points(model, 9, seed=1)
    logits, predicted_iou = stock(model, embedding, points)
    ordered = predicted_iou.flatten().sort().values
    threshold = float(ordered[rank - 1] + ordered[rank]) / 2  # between two masks, so that rounding has no effect
    assert threshold > 0
    point, mask = (predicted_iou > threshold).nonzero(as_tuple=True)
    assert 0 < len(point) < 27
    check_masks(decode(model, embedding, points, threshold), logits, predicted_iou, point.tolist(), mask.tolist())


def test_shapes_without_any_kept_mask(model: Sam) -> None:
    embedding, points = image_and_points(model, 3)
    found = decode(model, embedding, points, 1e6)
    side = 4 * embedding.shape[-1]
    assert found.logits.shape == (0, side, side)
    assert found.predicted_iou.shape == found.point.shape == (0,)


def test_a_predicted_iou_equal_to_the_threshold_is_not_above_it(model: Sam) -> None:
    embedding, points = image_and_points(model, 4)
    predicted_iou = decode(model, embedding, points, 0).predicted_iou
    assert not len(decode(model, embedding, points, predicted_iou.max().item()).point)


def test_masks_of_a_point_do_not_depend_on_the_batch(model: Sam) -> None:
    embedding, points = image_and_points(model, 6, seed=2)
    together = decode(model, embedding, points, 0)
    for number, point in enumerate(points):
        alone = decode(model, embedding, point[None], 0)
        of_point = together.point == number
        scale = max(alone.logits.abs().max().item(), 1)
        torch.testing.assert_close(alone.logits, together.logits[of_point], rtol=0, atol=1e-5 * scale)
        torch.testing.assert_close(alone.predicted_iou, together.predicted_iou[of_point], rtol=1e-4, atol=1e-5)
