"""The time that the SAM is expected to take."""

import pytest
import torch

import config
from sam import speed
from sam.registry import SAM_VARIANTS
from sam.speed import Operations, count_operations, estimate_seconds, measure_speed


def test_operations_are_those_of_products_of_matrices() -> None:
    assert speed._count(lambda: torch.ones(10, 20) @ torch.ones(20, 30)) == 2 * 10 * 20 * 30


def test_operations_of_official_models() -> None:
    vit_b, vit_t = count_operations("vit_b"), count_operations("vit_t")
    # 486 billion multiplications and additions for ViT-B's encoder, as other counters find; both share their decoder.
    assert vit_b.per_image / 2 == pytest.approx(486e9, rel=0.01)
    assert vit_t.per_image < vit_b.per_image / 10
    assert vit_t.per_point == vit_b.per_point


def test_seconds_follow_from_operations_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "count_operations", lambda _: Operations(100.0, 7.0))
    monkeypatch.setattr(speed, "measure_speed", lambda *_: 1000.0)
    monkeypatch.setitem(speed.EFFICIENCY, "cpu", 0.5)
    monkeypatch.setitem(config.STAGE1_SAM_PARAMS, "points_per_side", 4)
    seconds = estimate_seconds("vit_t", torch.device("cpu"), "fp32", encoded=9, masked=2)
    assert seconds == pytest.approx((9 * 100 + 2 * 16 * 7) / 500)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_speed_is_measured(precision: str) -> None:
    assert 1e8 < measure_speed(torch.device("cpu"), precision) < 1e14


@pytest.mark.parametrize("model_type", SAM_VARIANTS)
def test_the_registry_knows_how_many_points_take_the_work_of_encoding(model_type: str) -> None:
    operations = count_operations(model_type)
    known = SAM_VARIANTS[model_type].encoding_points
    assert operations.per_image / operations.per_point == pytest.approx(known, rel=0.05)
