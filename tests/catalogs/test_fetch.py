"""Fetching the images of a plan."""

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from catalogs import fetch
from catalogs.plan import Decision, EventPlan, Measured
from catalogs.query import Query
from catalogs.scenes import Acquisition
from rasters.affine import Affine
from rasters.place import Grid, epsg_crs
from tests.catalogs.test_scenes import QUERY
from utils import EventError, Window


def test_first_error_ends_the_fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = Event()
    ended: list[str] = []

    def fake_fetch(one: Decision, query: Query, grid: Grid, windows: Iterator[Window], path: Path) -> None:
        if one is plan.decisions[-1]:
            raise EventError("gone")
        next(windows)
        assert stopped.wait(30)  # set by the error of the last image, while this one has windows left
        with pytest.raises(EventError, match="stopped"):
            next(windows)
        ended.append(path.name)

    monkeypatch.setattr(fetch, "threading", SimpleNamespace(Event=lambda: stopped))
    monkeypatch.setattr(fetch, "_fetch", fake_fetch)
    days = [datetime(2021, 7, day, tzinfo=timezone.utc) for day in range(1, fetch.FETCHERS + 1)]
    images = [Decision(Measured(Acquisition(day.date(), "sat-a", ())), "historical image") for day in days]
    plan = EventPlan(images, Grid(epsg_crs(32633), Affine(0, 1, 0, 0, 0, -1), (4096, 4096)))
    with pytest.raises(EventError, match="gone"):
        fetch._fetch_all(plan, QUERY, tmp_path)
    assert sorted(ended) == ["20210701.tif", "20210702.tif", "20210703.tif"]
