"""Each method against hand-computed values, scikit-learn, or a property that it has by definition."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from baselines.change_vectors import change_vectors
from baselines.dates import Scored, otsu_threshold, sample_bands
from baselines.ir_mad import fit_no_change, ir_mad
from baselines.pca_kmeans import SIDE, pca_kmeans
from img_io import EventImages, Image, open_event
from rasters.raster import MemoryRaster
from tests.helpers import whole
from tests.tiffs import write_tiff
from utils import Event, EventError, Window

RNG = np.random.default_rng(5)
SHAPE = (70, 90)
PLACE = np.kron(RNG.integers(60, 190, (7, 9, 3), np.uint8), np.ones((10, 10, 1), np.uint8))
NOISY = (PLACE + RNG.integers(-9, 10, PLACE.shape)).astype(np.uint8)
BURNT = np.s_[20:40, 30:60]


def seen_again(image: np.ndarray) -> np.ndarray:
    """The same place with other noise."""
    return (image + RNG.integers(-9, 10, image.shape)).clip(0, 255).astype(np.uint8)


def burnt(image: np.ndarray) -> np.ndarray:
    changed = image.copy()
    changed[BURNT] = [250, 10, 20]
    return changed


def images_of(folder: Path, *dates: np.ndarray, nodata: int | None = None) -> EventImages:
    """Dates, (H, W, 3) uint8, oldest first, as an event's images."""
    paths = [write_tiff(folder / f"{number}.tif", values, nodata=nodata) for number, values in enumerate(dates)]
    return open_event(Event(folder, paths[-1], tuple(paths[:-1]), None))


def cva(reference: Image, monitor: Image) -> Scored:
    return change_vectors([reference], monitor)


METHODS: list[Callable[[Image, Image], Scored]] = [cva, ir_mad, pca_kmeans]


@pytest.mark.parametrize("method", METHODS)
def test_what_changed_is_above_the_threshold(tmp_path: Path, method: Callable[[Image, Image], Scored]) -> None:
    images = images_of(tmp_path, NOISY, burnt(seen_again(NOISY)))
    scores = whole(method(images.reference, images.monitor))
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() <= 1
    inside = np.zeros(SHAPE, bool)
    inside[22:38, 32:58] = True  # the edges belong to neighbourhoods of both
    outside = np.ones(SHAPE, bool)
    outside[18:42, 28:62] = False
    assert (scores[inside] > 0.5).mean() > (0.75 if method is pca_kmeans else 0.99)
    assert (scores[outside] > 0.5).mean() < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_windows_are_parts_of_the_whole_and_missing_data_is_nan(
    tmp_path: Path, method: Callable[[Image, Image], Scored]
) -> None:
    reference, monitor = NOISY.copy(), burnt(NOISY)
    reference[:10, :10] = 0
    images = images_of(tmp_path, reference, monitor, nodata=0)
    scores = method(images.reference, images.monitor)
    everything = whole(scores)
    assert np.isnan(everything[:10, :10]).all()
    assert np.isnan(everything).sum() == 100
    for window in (Window(0, 0, 33, 21), Window(33, 21, 57, 49), Window(5, 60, 7, 10)):
        np.testing.assert_allclose(scores.read(window), everything[window.slices], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_dates_without_common_data_are_refused(tmp_path: Path, method: Callable[[Image, Image], Scored]) -> None:
    reference, monitor = NOISY.copy(), NOISY.copy()
    reference[:35] = 0
    monitor[35:] = 0
    images = images_of(tmp_path, reference, monitor, nodata=0)
    with pytest.raises(EventError, match=r"no pixel"):
        method(images.reference, images.monitor)


def test_change_vectors_by_hand(tmp_path: Path) -> None:
    before, after = np.zeros((2, 64, 64, 3), np.uint8)
    before[:32], before[32:] = [10, 0, 50], [20, 0, 50]  # mean 15, 0, 50; deviation 5, 0, 0
    after[:32], after[32:] = [10, 0, 50], [20, 8, 50]  # mean 15, 4, 50; deviation 5, 4, 0
    lengths = change_vectors(images_of(tmp_path, before, after).historical, images_of(tmp_path, before, after).monitor)
    numbers = whole(lengths.numbers)
    np.testing.assert_allclose(numbers, 1, atol=1e-6)  # (-1, 0, 0) to (-1, -1, 0), (1, 0, 0) to (1, 1, 0)
    assert lengths.threshold == 2  # none reaches it
    np.testing.assert_allclose(whole(lengths), 1 / 3, atol=1e-6)


def test_the_shortest_vector_leaves_out_what_an_earlier_date_showed(tmp_path: Path) -> None:
    earlier = NOISY.copy()
    earlier[BURNT] = [250, 10, 20]
    monitor = burnt(NOISY)
    monitor[50:60, 10:20] = [0, 255, 0]
    images = images_of(tmp_path, earlier, NOISY, monitor)
    alone, of_all = (whole(change_vectors(dates, images.monitor)) for dates in ([images.reference], images.historical))
    assert alone[BURNT].min() > 0.5
    assert of_all[BURNT].max() < 0.5
    assert of_all[50:60, 10:20].min() > 0.5


def test_a_date_without_data_is_not_compared(tmp_path: Path) -> None:
    earlier = burnt(NOISY)
    earlier[:30] = 0
    images = images_of(tmp_path, earlier, NOISY, burnt(NOISY), nodata=0)
    scores = whole(change_vectors(images.historical, images.monitor))
    assert not np.isnan(scores).any()
    assert scores[20:30, 30:60].min() > scores[30:40, 30:60].max()


def test_ir_mad_does_not_change_with_affine_changes_of_the_bands() -> None:
    before = RNG.normal(100, 20, (4000, 3))
    after = before @ RNG.normal(0, 1, (3, 3)) + RNG.normal(0, 4, (4000, 3))
    after[:400] += RNG.normal(0, 60, (400, 3))
    mixing, shift = RNG.normal(0, 1, (3, 3)), RNG.normal(0, 50, 3)
    plain = fit_no_change(before, after).distances(before, after)
    mixed = after @ mixing + shift
    np.testing.assert_allclose(fit_no_change(before, mixed).distances(before, mixed), plain, rtol=1e-3)
    assert np.median(plain[:400]) > 20 * np.median(plain[400:])
    threshold = otsu_threshold(MemoryRaster(np.sqrt(plain)[None].astype(np.float32))) ** 2
    assert (plain[:400] > threshold).mean() > 0.5
    assert (plain[400:] > threshold).mean() < 0.01


def test_ir_mad_of_grey_images_has_one_variate_and_of_constant_ones_none(tmp_path: Path) -> None:
    grey = np.repeat(NOISY[..., :1], 3, axis=2)
    images = images_of(tmp_path, grey, burnt(grey) // 3 + 20)
    scores = ir_mad(images.reference, images.monitor)
    assert len(scores.numbers.variates.correlations) == 1  # type: ignore[attr-defined]
    assert not np.isnan(whole(scores)).any()
    images = images_of(tmp_path, np.full_like(NOISY, 7), NOISY)
    with pytest.raises(EventError, match="same colour everywhere"):
        ir_mad(images.reference, images.monitor)


def test_pca_kmeans_is_scikit_learns(tmp_path: Path) -> None:
    images = images_of(tmp_path, NOISY, burnt(NOISY))
    difference = np.abs(burnt(NOISY).astype(np.float32).mean(axis=2) - NOISY.astype(np.float32).mean(axis=2))
    around = np.pad(difference, SIDE // 2, mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(around, (SIDE, SIDE)).reshape(*SHAPE, SIDE**2).astype(float)
    pca = PCA(0.9, svd_solver="full").fit(views[::SIDE, ::SIDE].reshape(-1, SIDE**2))
    projected = pca.transform(views.reshape(-1, SIDE**2))
    clusters = KMeans(2, n_init=10, random_state=0).fit(projected)
    far, near = np.sort(clusters.transform(projected), axis=1).T[::-1]
    changed = clusters.labels_ == np.argmax(clusters.cluster_centers_ @ pca.components_.sum(axis=1))
    expected = np.where(changed, far, near) / (far + near)
    np.testing.assert_allclose(whole(pca_kmeans(images.reference, images.monitor)).ravel(), expected, atol=1e-4)


def test_large_images_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.dates.SAMPLE", 70 * 90 // 4)
    monkeypatch.setattr("rasters.raster.STRIP_ROWS", 1)
    monkeypatch.setattr("rasters.raster.STRIP_BYTES", 4 * 90 * 7)  # strips of 7 rows: some begin at an odd one
    images = images_of(tmp_path, NOISY, burnt(NOISY))
    sampled, _ = sample_bands([images.reference, images.monitor])
    np.testing.assert_array_equal(sampled, NOISY[::2, ::2].reshape(-1, 3))
    numbers = MemoryRaster(np.arange(70 * 90, dtype=np.float32).reshape(SHAPE))
    assert otsu_threshold(numbers) == pytest.approx(numbers.values.mean(), rel=0.03)
