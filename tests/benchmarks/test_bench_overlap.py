"""Region borders on the borders of windows."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_overlap
from benchmarks.bench_overlap import Borders, Layout
from demo.make_events import DemoEvent, write_event
from tests.report.test_figures import png_size
from tests.scripts import FEW_POINTS, run_forked
from utils import read_event


def test_the_share_of_borders_on_seams_by_hand() -> None:
    flagged = np.zeros((6, 8), bool)
    flagged[1:4, 2:4] = True  # 3 rows x 2 columns: 10 edges, 3 of them between columns 3 and 4
    flagged[5, 7] = True  # 2 edges inside the image
    borders = Borders.of(flagged)
    assert borders.beside_columns.tolist() == [0, 0, 3, 0, 3, 0, 0, 1]
    assert borders.above_rows.tolist() == [0, 2, 0, 0, 2, 1]
    assert borders.share_on([4]) == pytest.approx((3 + 2) / 12)
    assert borders.share_on([3, 5]) == pytest.approx((0 + 0 + 0 + 1) / 12)
    assert borders.share_on([]) == 0


def test_without_regions_no_border_lies_on_a_seam() -> None:
    assert Borders.of(np.ones((4, 4), bool)).share_on([2]) == 0


def test_seams_lie_in_the_middle_of_overlaps() -> None:
    assert Layout(1024, 0).seams(2048) == [1024]
    assert Layout(1024, 128).seams(2048) == [960, 1472]
    assert Layout(2048, 0).seams(2048) == []


def test_all_layouts_of_an_event_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], cwd: Path, env: dict[str, str], check: bool) -> None:
        done = run_forked(command, env | FEW_POINTS, cwd)
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(subprocess, "run", run)
    event = read_event(write_event(tmp_path / "data", DemoEvent("4_fire", 21), 256, ["20190620"]))
    outcomes = [
        bench_overlap.run_event(event, tmp_path / str(number), layout, "cpu")
        for number, layout in enumerate(bench_overlap.layouts(256))
    ]
    rows = bench_overlap.result_rows(outcomes, 256)
    assert [row["windows"] for row in rows] == ["4", "9", "9", "1"]
    assert rows[-1]["borders on seams"] == rows[-1]["by chance"] == rows[0]["by chance"]
    bench_overlap.print_table([*rows, *rows])
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)
    bench_overlap.draw(tmp_path / "picture.png", outcomes, 256)
    assert png_size(tmp_path / "picture.png")[0] == pytest.approx(180 / 25.4 * 300, abs=1)
