import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rasters import quantiles as module
from rasters.quantiles import exact_quantile
from tests.helpers import property_test

elements = (
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(0, 1, width=32),
    st.sampled_from([-0.0, 0.0, 0.25, 0.5, -1.5, 1e-30, -1e-30]),
)
parts = st.one_of([arrays(np.float32, st.integers(1, 40), elements=values) for values in elements])
quantiles = st.sampled_from([0.0, 1.0, 0.7, 0.945, 0.9]) | st.floats(0, 1)


def assert_equals_numpy(parts: list[np.ndarray], quantile: float) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # differences of huge values
        found = exact_quantile(lambda: iter(parts), quantile)
        expected = np.quantile(np.concatenate([part.ravel() for part in parts]), quantile)
    assert found.dtype == expected.dtype == np.float32
    assert found.tobytes() == (expected + np.float32(0)).tobytes()  # the sign of zero depends on NumPy's partition


@property_test
@given(st.lists(parts, min_size=1, max_size=4), quantiles)
def test_quantile_equals_numpy(parts: list[np.ndarray], quantile: float) -> None:
    assert_equals_numpy(parts, quantile)


@pytest.mark.parametrize("count", [1, 2, 3, 65_536, 1_000_003])
@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.5, 0.7, 0.9, 0.945, 1.0])
def test_quantile_equals_numpy_for_scores_and_ties(count: int, quantile: float) -> None:
    rng = np.random.default_rng(count)
    values = rng.random(count, dtype=np.float32) - np.float32(0.2)
    assert_equals_numpy(np.array_split(values, min(count, 3)), quantile)
    assert_equals_numpy([rng.choice(values[:5], count)], quantile)
    assert_equals_numpy([np.maximum(values, 0)], quantile)


@pytest.mark.parametrize("count", [(1 << 24) + 300_001, (1 << 24) + 300_002])
@pytest.mark.parametrize("quantile", [0.7, 0.945, 1.0])
def test_quantile_equals_numpy_beyond_2_to_the_24_values(count: int, quantile: float) -> None:
    # Before NumPy 2.4 the index into the sorted values is a float32: only even ones from 2 ** 24 on.
    assert_equals_numpy([np.arange(count, 0, -1, dtype=np.float32) // 3], quantile)


@pytest.mark.parametrize("value", [0, -1.5, np.inf, -np.inf])
def test_quantile_of_infinite_values_equals_numpy(value: float) -> None:
    assert_equals_numpy([np.array([value, np.inf, -np.inf, 1, 2], np.float32)], 0.5)
    assert_equals_numpy([np.array([value, np.inf, -np.inf, 1, 2], np.float32)], 0.9)


def test_quantile_of_values_with_nan_is_nan() -> None:
    assert_equals_numpy([np.arange(5, dtype=np.float32), np.array([[0, np.nan]], np.float32)], 0.3)


@pytest.mark.parametrize(("most_kept", "reads"), [(8, 1), (7, 2)])
def test_parts_of_any_shape_are_read_twice_if_they_are_large_and_not_modified(
    monkeypatch: pytest.MonkeyPatch, most_kept: int, reads: int
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", most_kept)
    band = np.array([[3, 1], [2, 0]], np.float32)
    band.flags.writeable = False
    calls = []

    def read_parts() -> list[np.ndarray]:
        calls.append(1)
        return [band[:, ::-1], band.T]

    assert exact_quantile(read_parts, 0.5) == 1.5
    assert len(calls) == reads


@property_test
@given(st.lists(parts, min_size=1, max_size=4), quantiles, st.integers(1, 9), st.booleans())
def test_runs_of_equal_values_and_nan_are_counted(
    parts: list[np.ndarray], quantile: float, length: int, has_nan: bool
) -> None:
    runs = [np.repeat(part, length) for part in parts]
    gap = [np.full(5, np.nan, np.float32), -np.full(3, np.nan, np.float32)] if has_nan else []
    with np.errstate(over="ignore", invalid="ignore"):
        found = exact_quantile(lambda: iter([*gap, *runs]), quantile, ignore_nan=True)
    assert_equals_numpy(runs, quantile)
    with np.errstate(over="ignore", invalid="ignore"):
        assert found.tobytes() == (np.quantile(np.concatenate(runs), quantile) + np.float32(0)).tobytes()


def test_quantile_of_nan_alone_is_nan() -> None:
    gap = np.full(5, np.nan, np.float32)
    assert np.isnan(exact_quantile(lambda: [gap], 0.5, ignore_nan=True))
