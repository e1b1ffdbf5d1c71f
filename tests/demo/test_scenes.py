import numpy as np
import pytest

from demo.scenes import (
    CROP_CYCLE,
    SURFACE_INDEX,
    Patch,
    SyntheticEvent,
    build_world,
    disaster,
    make_event,
    paint,
    render,
)

SIZE = 96


def small_event(seed: int, category: int) -> SyntheticEvent:
    return make_event(seed, category, size=SIZE, historical_dates=3)


def square(kind: str, phase: int = 0, label: int = 0) -> Patch:
    """A patch over the whole scene."""
    return Patch(
        np.array([[-1, -1], [SIZE, -1], [SIZE, SIZE], [-1, SIZE]], float), kind, np.zeros(3), phase, label=label
    )


def test_the_same_seed_draws_the_same_event() -> None:
    first, second, other = small_event(7, 4), small_event(7, 4), small_event(8, 4)
    for image, again in zip([*first.historical, first.monitor], [*second.historical, second.monitor], strict=True):
        np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(first.label, second.label)
    assert (first.monitor != other.monitor).any()


@pytest.mark.parametrize("category", range(6))
def test_images_are_rgb_bytes_of_one_size(category: int) -> None:
    event = small_event(1, category)
    assert len(event.historical) == 3
    for image in (*event.historical, event.monitor):
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.uint8
        assert image.std() > 1


@pytest.mark.parametrize(("category", "classes"), [(1, {0, 2, 3}), (2, {0, 2}), (3, {0, 2}), (4, {0, 2}), (5, {0, 2})])
def test_label_classes_of_a_disaster(category: int, classes: set[int]) -> None:
    label = small_event(3, category).label
    assert label is not None
    assert label.shape == (SIZE, SIZE)
    assert label.dtype == np.uint8
    assert set(np.unique(label)) == classes


def test_a_normal_control_has_no_label() -> None:
    assert small_event(3, 0).label is None


def test_a_disaster_changes_the_scene_only_inside_its_label() -> None:
    rng = np.random.default_rng(5)
    world, traces = build_world(rng, SIZE), disaster(rng, SIZE, 4)
    before, after = paint(world, SIZE, 2), paint(world + traces, SIZE, 2)
    changed = before.instances != after.instances
    assert changed.any()
    assert set(after.instances[changed]) == {len(world) + 1}
    assert set(after.surfaces[changed]) == {SURFACE_INDEX["burnt"]}


@pytest.mark.parametrize("phase", range(3))
def test_crops_follow_their_cycle(phase: int) -> None:
    shown = [paint([square("crop", phase)], SIZE, date).surfaces for date in range(4)]
    for date, surfaces in enumerate(shown):
        assert set(np.unique(surfaces)) == {SURFACE_INDEX[CROP_CYCLE[(phase + date) % 3]]}


def test_other_land_cover_keeps_its_surface() -> None:
    assert len({square("forest").surface(date) for date in range(4)}) == 1


def test_later_patches_cover_earlier_ones() -> None:
    painting = paint([square("crop"), square("water")], SIZE, 0)
    assert set(np.unique(painting.instances)) == {2}
    assert set(np.unique(painting.surfaces)) == {SURFACE_INDEX["water"]}


def test_illumination_differs_between_images() -> None:
    rng = np.random.default_rng(0)
    painting = paint([square("grass")], SIZE, 0)
    first, second = render(rng, painting, noise=0), render(rng, painting, noise=0)
    assert abs(first.mean() - second.mean()) > 0.5
