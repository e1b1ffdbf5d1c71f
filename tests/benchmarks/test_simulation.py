"""Efficiency of the dispatcher's order, on simulated workers."""

from pathlib import Path

import pytest

from benchmarks.bench_scaling import dispatch
from benchmarks.simulation import EVENTS, LARGEST, Costs, Extent, PaperPool, Simulation, draw_extents

EIGHT_WINDOWS = Extent((4 * 2048, 2 * 2048), 2)  # 33.6 megapixels


def efficiency(extents: list[Extent], costs: Costs, workers: int, folder: Path) -> float:
    simulation = Simulation.from_extents(extents, costs, folder)
    pool = PaperPool(workers, costs.open)
    dispatch(pool, simulation)
    return sum(simulation.window_seconds()) / workers / pool.now


def test_one_worker_is_never_idle_without_waiting_times(tmp_path: Path) -> None:
    costs = Costs(0, 1, 0.5, 0, 0)
    assert efficiency([EIGHT_WINDOWS] * 3, costs, 1, tmp_path) == pytest.approx(1)


def test_workers_compute_other_events_while_a_stage_is_finished(tmp_path: Path) -> None:
    costs = Costs(0, 1, 0.5, 0.5, 0)  # 17 s between the stages, as long as one worker computes per stage
    assert efficiency([EIGHT_WINDOWS] * 40, costs, 2, tmp_path) > 0.97


def test_workers_stay_busy_while_an_event_is_opened(tmp_path: Path) -> None:
    costs = Costs(3, 1, 0.5, 0, 0)
    assert efficiency([EIGHT_WINDOWS] * 40, costs, 2, tmp_path) > 0.97


def test_drawn_events_have_the_published_sizes() -> None:
    extents = draw_extents(EVENTS)
    sizes = [height * width / 1e6 for (height, width), _ in extents]
    assert len(sizes) == EVENTS
    assert max(sizes) == pytest.approx(LARGEST, rel=1e-3)
    assert max(dates for _, dates in extents) == 7
