"""Each benchmark runs, on next to nothing; what it measures is no test's business."""

import csv
from pathlib import Path

import pytest

from benchmarks import on_gpu
from tests.scripts import DEMO_SAM, FEW_POINTS, run_process


@pytest.mark.parametrize(
    ("module", "flags", "rows"),
    [
        ("bench_pipeline", ("--size", 128, "--dates", 2, "--model", "vit_demo", "--random"), 4),
        ("bench_pipeline", ("--size", 128, "--dates", 2, "--model", "vit_demo", "--alone"), 2),
        ("bench_kernels", ("--size", 128, "--model", "vit_demo"), 10),
        ("bench_waterfall", ("--size", 128, "--model", "vit_demo"), 6),
        ("bench_raster", ("--megapixels", 0.02, "--dates", 2, "--model", "vit_demo"), 1),
        ("bench_stages", ("--size", 128, "--dates", 2, "--model", "vit_demo"), 1),
        ("bench_clouds", ("--size", 256, "--model", "vit_demo"), 5),
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
        assert float(row.get("share within 1e-4") or 1) >= 0.999, row


def test_what_no_time_is_left_for_is_listed(tmp_path: Path) -> None:
    done = run_process("-mbenchmarks.on_gpu", "--device", "cpu", "--minutes", 0.1, "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not run: ") == len(on_gpu.steps("cpu", tmp_path))


def test_a_step_that_fails_or_takes_too_long_is_named() -> None:
    assert on_gpu.run_step(on_gpu.Step("", "json.tool", ["missing.json"]), 4, 60) == 2
    assert on_gpu.run_step(on_gpu.Step("", "http.server", ["0"]), 4, 1) is None
    assert on_gpu.run_step(on_gpu.Step("", "this", []), 4, 60) == 0


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


def test_real_events_are_scored_with_one_date_and_with_all(small_events: Path, tmp_path: Path) -> None:
    results, thresholds, output = tmp_path / "results.csv", tmp_path / "thresholds.csv", tmp_path / "output"
    flags = ("--data-root", small_events, "--output-root", output, "--results", results, "--thresholds", thresholds)
    sizes = {"ANOMALYCD_STAGE1_MIN_MASK_PIXELS": "300", "ANOMALYCD_STAGE2_MIN_MASK_PIXELS": "150"}
    written = []
    for _ in range(2):
        done = run_process("-mbenchmarks.bench_real", *flags, "--model", "vit_demo", **FEW_POINTS, **sizes)
        assert done.returncode == 0, done.stderr
        written.append([path.stat().st_mtime_ns for path in sorted(output.rglob("*.tif"))])
    assert written[0] == written[1]  # the second time, the maps of the first were used
    with open(results, newline="", encoding="utf-8") as file:
        control, no_control, one, every = list(csv.DictReader(file))[4:]
    assert control["F1"] == no_control["F1"] == ""
    assert (one["earlier dates"], every["earlier dates"]) == ("1", "4")
    evaluated = run_process("run_eval.py", "--data-root", small_events, "--result-root", output / "stage2")
    assert f"F1={every['F1']}" in evaluated.stdout
    assert 0 < float(every["unweighted precision"]) <= float(every["precision"])
    with open(thresholds, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["threshold"] == "0.08"]
    assert [row["background weight"] for row in rows] == ["0.1", "1"] * 2
    assert [row["f1"] for row in rows] == [every["F1"], every["unweighted F1"]] * 2
    assert {row["flagged without an event"] for row in rows} == {no_control["flagged"]}


def test_methods_are_scored_beside_each_other(small_events: Path, tmp_path: Path) -> None:
    results, output = tmp_path / "results.csv", tmp_path / "output"
    flags = ("--data-root", small_events, "--output-root", output, "--results", results, "--model", "vit_demo")
    done = run_process("-mbenchmarks.bench_methods", *flags, "--methods", "anomalycd", "cva", **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    with open(results, newline="", encoding="utf-8") as file:
        ours, cva, everything = list(csv.DictReader(file))
    assert (ours["method"], cva["method"], everything["method"]) == ("anomalycd", "cva", "everything")
    assert {row["events"] for row in (ours, cva, everything)} == {row["quiet"] for row in (ours, cva)} == {"1"}
    assert everything["flagged without an event"] == "1.0000"
    assert everything["object recall"] == "1.0000"
    assert 0 <= float(cva["unweighted F1"]) <= float(cva["F1"]) <= 1
    evaluated = run_process("run_eval.py", "--data-root", small_events, "--result-root", output / "anomalycd/stage2")
    assert f"F1={ours['F1']}" in evaluated.stdout


def test_switches_are_measured_over_shifts(small_events: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    flags = ("--data-root", small_events, "--model", "vit_demo", "--points", 4, "--results", results)
    done = run_process("-mbenchmarks.bench_switches", *flags)
    assert done.returncode == 0, done.stderr
    with open(results, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["shift"]) for row in rows[:5]] == [
        ("published", "0"),
        ("plain features", "0"),
        ("tolerance 1", "0"),
        ("tolerance 2", "0"),
        ("published", "2"),
    ]
    assert len(rows) == 4 + 4 * 3


def test_rules_with_usual_scores_are_scored(small_events: Path, tmp_path: Path) -> None:
    results, roots = tmp_path / "results.csv", ("--stage1-root", tmp_path / "one", "--stage2-root", tmp_path / "two")
    done = run_process("run.py", "--data-root", small_events, *roots, "--explain", *DEMO_SAM, **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    flags = ("--data-root", small_events, "--result-root", tmp_path / "two", "--results", results)
    done = run_process("-mbenchmarks.bench_usual", *flags)
    assert done.returncode == 0, done.stderr
    evaluated = run_process("run_eval.py", "--data-root", small_events, "--result-root", tmp_path / "two")
    with open(results, newline="", encoding="utf-8") as file:
        published, *others = list(csv.DictReader(file))
    assert f"F1={published['F1']}" in evaluated.stdout
    assert {row["events"] for row in others} == {"1"}


def test_the_profile_names_the_parts_of_both_programs() -> None:
    done = run_process("-mbenchmarks.bench_profile", "--size", 128, "--model", "vit_demo", **FEW_POINTS)
    assert done.returncode == 0, done.stderr
    assert "run-length encoding" in done.stdout
    assert "stability and boxes" in done.stdout
