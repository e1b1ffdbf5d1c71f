"""The scripts of the demo."""

from pathlib import Path

import numpy as np
import pytest

import config
from demo.make_events import DemoEvent, write_event
from docs.tools import framework
from docs.tools.categories import labelled_text
from img_io import open_event
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from tests.report.test_figures import png_size
from tests.scripts import DEMO_SAM, FEW_POINTS, run_process
from utils import list_events


def test_the_demo_draws_six_events(tmp_path: Path) -> None:
    done = run_process("-mdemo.make_events", tmp_path)
    assert done.returncode == 0, done.stderr
    listing = list_events(tmp_path)
    assert [event.category for event in listing.events] == [0, 1, 2, 3, 4, 5]
    assert not listing.skipped
    for event in listing.events:
        images = open_event(event)
        assert len(event.historical) == 4
        assert images.shape == (1024, 1024)
        assert images.georeference.spatial_reference is not None


def test_the_demo_draws_its_events_by_category(small_events: Path, tmp_path: Path) -> None:
    done = run_process("-mdocs.tools.categories", small_events, tmp_path / "categories.png")
    assert done.returncode == 0, done.stderr
    assert png_size(tmp_path / "categories.png")[2] == pytest.approx(300, abs=0.1)


def test_labelled_shares_are_one_number_or_a_range() -> None:
    assert labelled_text([]) == "no label"
    assert labelled_text([0.061, 0.059]) == "6 % labelled"
    assert labelled_text([0.03, 0.09, 0.05]) == "3 to 9 % labelled"


def test_the_demo_draws_the_framework_from_an_event(tmp_path: Path) -> None:
    event = DemoEvent(framework.EVENT, 21)
    write_event(tmp_path / "events", event, size=256)
    maps = np.zeros((256, 256), np.float32)
    for folder, name in (
        ("stage1", config.CHANGE_MAP_NAME),
        ("stage2", config.FILTERED_MAP_NAME),
        ("stage2", config.ANOMALY_MAP_NAME),
    ):
        write_raster(tmp_path / folder / event.name / name, maps, Georeference())
    picture = tmp_path / "framework.png"
    done = run_process("-mdocs.tools.framework", tmp_path / "events", tmp_path, picture, *DEMO_SAM, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert png_size(picture)[0] == pytest.approx(framework.WIDTH / 25.4 * 300, abs=1)


def test_feature_colours_are_shared_by_all_dates() -> None:
    first = np.zeros((2, 2, 4), np.float32)
    first[0, 0, 2] = 5
    colors = framework.feature_colors([first, first[::-1]])
    np.testing.assert_allclose(colors[0], colors[1][::-1])
    assert len({tuple(color) for color in colors[0].reshape(-1, 3).round(6)}) == 2
