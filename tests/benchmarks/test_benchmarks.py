"""Each benchmark runs, on next to nothing; what it measures is no test's business."""

import csv
from pathlib import Path

import pytest

from tests.scripts import FEW_POINTS, run_process


@pytest.mark.parametrize(
    ("module", "flags", "rows"),
    [
        ("bench_pipeline", ("--size", 128, "--dates", 2), 4),
        ("bench_pipeline", ("--size", 128, "--dates", 2, "--random"), 4),
        ("bench_waterfall", ("--size", 128), 6),
        ("bench_raster", ("--megapixels", 0.02, "--dates", 2), 1),
        ("bench_stages", ("--size", 128, "--dates", 2), 1),
        ("bench_clouds", ("--size", 256), 5),
        ("bench_host", ("--events", 1, "--size", 256, "--dates", 3, "--device-seconds", 0.02, 0.01), 1),
    ],
)
def test_a_benchmark_leaves_its_rows(tmp_path: Path, module: str, flags: tuple[object, ...], rows: int) -> None:
    results = tmp_path / "results.csv"
    done = run_process(f"-mbenchmarks.{module}", *flags, "--results", results, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    with open(results, newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == rows
    for row in table:
        assert float(row.get("share within 1e-4", 1)) >= 0.999, row


@pytest.mark.parametrize(
    ("part", "flags", "rows"),
    [
        ("real", ("--workers", 1, "--events", 1, "--size", 128), 2),
        ("simulated", ("--workers", 2, "--events", 2, "--speed-up", 10_000, "--size", 256, "--processes", 1), 1),
    ],
)
def test_scaling_leaves_its_rows(tmp_path: Path, part: str, flags: tuple[object, ...], rows: int) -> None:
    pytest.importorskip("ray")
    results = tmp_path / "results.csv"
    done = run_process("-mbenchmarks.bench_scaling", part, *flags, "--results", results, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    with open(results, newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == rows
    for row in table:
        assert float(row["windows per second"]) > 0, row


def test_the_profile_names_the_parts_of_both_programs() -> None:
    done = run_process("-mbenchmarks.bench_profile", "--size", 128, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert "run-length encoding" in done.stdout
    assert "stability and boxes" in done.stdout
