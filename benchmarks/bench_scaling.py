"""Measures how a run with `--ray` scales with its workers, real or simulated; needs Ray and GDAL.

    python -m benchmarks.bench_scaling real --workers 1 2
    python -m benchmarks.bench_scaling simulated --chart docs/images/scaling.png
    python -m benchmarks.bench_scaling driver

`real` times `run.py --ray --ray-workers N` on demo events, with one CPU and one thread per worker, against one worker
and against a single process without Ray. The times in the log separate start-up from work: a worker's time begins when
it is ready, with its model loaded; that of a single process when it begins to load its model. All times end when the
last event is done. Efficiency is the worker-seconds of one worker, divided by those of N workers.

`simulated` uses the real dispatcher and real Ray calls, but its workers and steps only wait as long as the work would
take. These times are measured first, with vit_demo on one thread of this CPU. Many workers share a process. The list of
the published events is not available ("some 80 events, up to 130 megapixels and 7 dates each"), so 80 sizes are drawn,
always the same ones: log-uniform from 2 to exactly 130 megapixels, with 3 to 7 dates, a width of 0.75 to 1.33 times the
height, and the published windows. A window that a small image clips takes its share of a full window's time. Features
that stage 1 keeps for stage 2 save no time. All waiting times are divided by a speed-up of at most 100, so that a run
takes about `--seconds`. The driver then has to be faster by the same factor, so efficiency is rather underestimated.
Seconds are reported without the speed-up. `on paper` is the efficiency of the same dispatcher with messages that cost
nothing, limited only by the order of the windows and the steps between them. No run can be shorter than the windows'
seconds divided by the workers, nor than the longest event with one worker per window; both are reported.

`driver` gives 64 workers 100,000 windows that take no time, of many events and of one event.

With simulated workers, efficiency is the windows' seconds divided by workers and makespan. The driver's CPU time counts
all threads of its process, including Ray's. Its memory is the peak beyond that when the workers' processes were ready.
Each run has a new process.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

import config
import run
from benchmarks.measure import append_rows, describe_environment, measure
from benchmarks.simulation import EVENTS, Costs, Extent, PaperPool, SimulatedPool, Simulation, draw_extents
from benchmarks.stepwise import compute_windows
from cli.flags import positive_int
from cli.progress import Progress
from cluster.connection import connected
from cluster.resources import WantedWorkers
from demo.make_events import DEMO_EVENTS, DemoEvent, write_event
from pipeline.dispatch import Dispatcher, Pool
from pipeline.stage import StageProgress, advance, count_windows
from report.figures import check_format, new_figure
from report.style import THRESHOLD
from sam.flags import SamFlags
from sam.settings import engine_settings, load_engine
from utils import list_events, read_event

PROJECT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DEMO = ("--device", "cpu", "--sam-model-type", "vit_demo")
TARGET = 0.9  # efficiency
MOST_SPEED_UP = 100  # above it, a window's wait is no longer than the delay of its timer


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure how a run grows with its workers.")
    parts = parser.add_subparsers(dest="part", required=True)
    real = parts.add_parser("real", help="run.py on this machine's cores")
    real.add_argument("--workers", nargs="+", type=positive_int, default=[1, 2], help="(default: 1 2); begin with 1")
    real.add_argument("--events", type=positive_int, default=12, help="(default: %(default)s)")
    real.add_argument("--size", type=positive_int, default=1024, help="side of the images (default: %(default)s)")
    simulated = parts.add_parser("simulated", help="many workers that only wait")
    many = [2**power for power in range(9)]
    simulated.add_argument("--workers", nargs="+", type=positive_int, default=many, help="(default: 1 2 4 ... 256)")
    simulated.add_argument("--events", type=positive_int, default=EVENTS, help="(default: %(default)s)")
    simulated.add_argument(
        "--seconds", type=float, default=25, help="seconds of windows per worker (default: %(default)s)"
    )
    simulated.add_argument("--speed-up", type=float, help="divides all waiting (default: computed from --seconds)")
    simulated.add_argument(
        "--costs", nargs=5, type=float, metavar=Costs._fields, help="seconds of the work (default: measured)"
    )
    simulated.add_argument(
        "--size", type=positive_int, default=4096, help="side of the images measured (default: %(default)s)"
    )
    simulated.add_argument("--chart", type=Path, help="PNG or PDF to draw (default: none)")
    driver = parts.add_parser("driver", help="many windows that take no time")
    driver.add_argument("--windows", type=positive_int, default=100_000, help="(default: %(default)s)")
    driver.add_argument("--workers", type=positive_int, default=64, help="(default: %(default)s)")
    for part in (real, simulated, driver):
        part.add_argument("--results", type=Path, help="CSV to append to (default: scaling_PART.csv in results)")
    for part in (simulated, driver):
        part.add_argument(
            "--processes", type=positive_int, default=4, help="processes shared by the workers (default: %(default)s)"
        )
    parts.add_parser("one").add_argument("task")  # when this script calls itself, once per run
    return parser.parse_args()


# --- Simulated workers -----------------------------------------------------------------------------------------------
class Task(NamedTuple):
    """A run with simulated workers."""

    extents: Sequence[Extent]
    costs: Costs
    workers: int
    processes: int


class RunMeasurement(NamedTuple):
    """Time and memory of a run, and its time on paper."""

    seconds: float
    driver_seconds: float  # of CPU time
    driver_bytes: int
    paper_seconds: float


def in_new_process(task: Task) -> RunMeasurement:
    """Run the task in a new process."""
    this_script = [sys.executable, "-m", "benchmarks.bench_scaling", "one", json.dumps(task)]
    done = subprocess.run(this_script, check=True, stdout=subprocess.PIPE, text=True)
    return RunMeasurement(*json.loads(done.stdout.splitlines()[-1]))


def run_task(text: str) -> None:
    """Run the task in this process and print `RunMeasurement` as JSON."""
    extents, costs, workers, processes = json.loads(text)
    task = Task([Extent(*extent) for extent in extents], Costs(*costs), workers, processes)
    settings = engine_settings(SamFlags.of(run.parse_arguments(DEMO)), torch.device("cpu"))
    wanted = WantedWorkers("local", "cpu", number=1, gpus=1.0, cpus=1)
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation.from_extents(task.extents, task.costs, Path(folder))
        paper = PaperPool(workers, task.costs.open)
        dispatch(paper, simulation)
        with connected(wanted) as ray:
            pool = SimulatedPool(ray, settings, workers, processes, task.costs.open)
            before = time.process_time()
            _, took = measure("cpu", lambda: dispatch(pool, simulation))
            driver_seconds = time.process_time() - before
    print(json.dumps(RunMeasurement(took.seconds, driver_seconds, took.host_bytes, paper.now)))


def dispatch(pool: Pool, simulation: Simulation) -> None:
    """Run all stages of all events."""
    listing = simulation.listing
    progress = Progress("simulated", listing, count_windows(simulation.plan), "window")
    largest_first = sorted(listing.events, key=progress.units_left, reverse=True)
    Dispatcher(pool, largest_first, simulation.plan, progress).run()
    progress.close()
    if len(progress.summary.done) != len(listing.events):
        raise RuntimeError(f"some events did not finish: {progress.summary}")


def measure_costs(size: int) -> Costs:
    """Measure the seconds of the work on one thread, with a demo event through both stages."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        event = read_event(write_event(Path(folder) / "events", DEMO_EVENTS[-1], size))
        roots = ("--stage1-root", f"{folder}/1", "--stage2-root", f"{folder}/2")
        arguments = run.parse_arguments([*roots, *DEMO])
        engine, settings = load_engine(SamFlags.of(arguments))
        seconds: list[float] = []
        windows: list[int] = []

        def take_step(step: StageProgress | None) -> StageProgress:
            started = time.perf_counter()
            finished, stages = (step.stage, step.rest) if step else (None, run.plan(event, arguments))
            step = advance(finished, stages, settings.identity)
            seconds.append(time.perf_counter() - started)
            return step

        step = take_step(None)
        while step.stage is not None:
            started = time.perf_counter()
            compute_windows(step, engine, None)
            seconds.append(time.perf_counter() - started)
            windows.append(len(step.missing))
            step = take_step(step)
    megapixels = size**2 / 1e6
    dates = len(event.historical) + 1
    stage1, stage2 = seconds[1] / windows[0], seconds[3] / windows[1] / dates
    return Costs(seconds[0], stage1, stage2, seconds[2] / megapixels, seconds[4] / megapixels)


def run_simulated(args: argparse.Namespace) -> list[dict[str, str]]:
    """Return a row for each number of workers."""
    if args.chart is not None:
        check_format(args.chart)
    costs = Costs(*args.costs) if args.costs else measure_costs(args.size)
    named = {f"{name.replace('_', ' ')} s": f"{seconds:.4g}" for name, seconds in costs._asdict().items()}
    simulation = Simulation.from_extents(draw_extents(args.events), costs, Path())
    windows = simulation.window_seconds()
    print("  ".join(f"{name}: {value}" for name, value in named.items()))
    print(
        f"{args.events} events, {len(windows)} windows, {sum(windows):.0f} s of them; the longest event "
        f"{simulation.longest_chain():.1f} s, the longest window {max(windows):.2f} s",
        flush=True,
    )
    rows = []
    for workers in args.workers:
        speed_up = args.speed_up or min(max(sum(windows) / workers / args.seconds, 1), MOST_SPEED_UP)
        took = in_new_process(Task(draw_extents(args.events), costs.divided_by(speed_up), workers, args.processes))
        ideal = sum(windows) / speed_up / workers
        rows.append(
            {
                "workers": str(workers),
                "events": str(args.events),
                "windows": str(len(windows)),
                "speed-up": f"{speed_up:.2f}",
            }
            | {
                "makespan s": f"{took.seconds * speed_up:.1f}",
                "efficiency": f"{ideal / took.seconds:.3f}",
                "efficiency on paper": f"{ideal / took.paper_seconds:.3f}",
                "windows / workers s": f"{ideal * speed_up:.1f}",
                "longest event s": f"{simulation.longest_chain():.1f}",
                "windows per second": f"{len(windows) / took.seconds / speed_up:.3f}",
            }
            | driver_columns(took, len(windows))
        )
        print_row(rows[-1])
    if args.chart is not None:
        draw_chart(rows, args.chart)
    return [row | named for row in rows]


def driver_columns(took: RunMeasurement, windows: int) -> dict[str, str]:
    """Return the driver's columns of a row."""
    return {
        "driver windows per second": f"{windows / took.seconds:.1f}",
        "driver CPU ms per window": f"{took.driver_seconds / windows * 1e3:.2f}",
        "driver MiB": f"{took.driver_bytes / 2**20:.0f}",
    }


def run_driver(args: argparse.Namespace) -> list[dict[str, str]]:
    """Return a row for many events of 50 windows per stage, and one for a single event."""
    side = config.STAGE1_PATCH_SIZE
    half = args.windows // 2  # for each stage
    rows = []
    for events, count in ((max(half // 50, 1), min(50, half)), (1, half)):
        columns = max(width for width in range(1, int(count**0.5) + 1) if count % width == 0)
        extent = Extent((count // columns * side, columns * side), 1)
        took = in_new_process(Task([extent] * events, Costs(0, 0, 0, 0, 0), args.workers, args.processes))
        row = {"workers": str(args.workers), "events": str(events), "windows": str(2 * count * events)}
        rows.append(row | {"seconds": f"{took.seconds:.1f}"} | driver_columns(took, 2 * count * events))
        print_row(rows[-1])
    return rows


def draw_chart(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Draw efficiency and windows per second over workers."""
    workers = [int(row["workers"]) for row in rows]
    rate = [float(row["windows per second"]) for row in rows]
    with new_figure(path, 160, 65) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(
            workers, [float(row["efficiency on paper"]) for row in rows], "s--", color="#bb5566", label="on paper"
        )
        left.plot(workers, [float(row["efficiency"]) for row in rows], "o-", color="#004488", label="through Ray")
        left.axhline(TARGET, color=THRESHOLD, linewidth=0.6, linestyle=":")
        left.set(title="Efficiency", ylim=(0, 1.05))
        linear = [rate[0] / workers[0] * number for number in workers]
        right.plot(workers, linear, "--", color=THRESHOLD, linewidth=0.8, label="linear")
        right.plot(workers, rate, "o-", color="#004488", label="through Ray")
        right.set(title="Windows per second")
        right.set_yscale("log")
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xticks(workers, [str(number) for number in workers])
            axes.set_xlabel("workers (simulated)")
            axes.legend()


# --- Real workers ----------------------------------------------------------------------------------------------------
def run_real(args: argparse.Namespace) -> list[dict[str, str]]:
    """Return a row for a single process, and one for each number of workers."""
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(args.events):
            like = DEMO_EVENTS[number % len(DEMO_EVENTS)]
            write_event(folder / "events", DemoEvent(f"{like.name}_{number}", like.seed + 100 * number), args.size)
        listing = list_events(folder / "events")
        windows_of = count_windows(partial(run.plan, args=run.parse_arguments(DEMO)))
        windows = sum(sum(windows_of(event).values()) for event in listing.events)
        alone = 0.0  # worker-seconds of a single worker
        for workers in (None, *args.workers):
            seconds, ready = time_run(folder, workers)
            work = sum(ready)
            alone = alone or (work if workers else 0.0)
            rows.append(
                {
                    "run": f"--ray-workers {workers}" if workers else "single process",
                    "events": str(args.events),
                    "size": str(args.size),
                    "windows": str(windows),
                    "total seconds": f"{seconds:.1f}",
                    "seconds of work": f"{work / len(ready):.1f}",
                    "windows per second": f"{windows * len(ready) / work:.3f}",
                    "efficiency": f"{alone / work:.3f}" if workers else "",
                }
            )
            print_row(rows[-1])
    return rows


def time_run(folder: Path, workers: int | None) -> tuple[float, list[float]]:
    """Return the seconds of a whole run, and those since each worker was ready. `workers` None: without Ray."""
    with tempfile.TemporaryDirectory(dir=folder) as outputs:
        log = Path(outputs) / "log.txt"
        roots = ["--stage1-root", f"{outputs}/1", "--stage2-root", f"{outputs}/2", "--log-file", str(log)]
        flags = ["--ray", "--ray-workers", str(workers), "--ray-cpus-per-worker", "1"] if workers else []
        command = [sys.executable, "run.py", "--data-root", str(folder / "events"), *roots, *DEMO, *flags]
        started = time.perf_counter()
        subprocess.run(command, cwd=PROJECT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        seconds = time.perf_counter() - started
        lines = log.read_text(encoding="utf-8").splitlines()
    end = max(logged(lines, r".*: both stages done in "))
    return seconds, [end - ready for ready in logged(lines, r"worker \d+ is ready " if workers else "SAM ")]


def logged(lines: Iterable[str], message: str) -> list[float]:
    """Return the times at which a message was logged, in seconds."""
    found = (re.match(rf"(\S+ \S+) [A-Z]+ \S+ {message}", line) for line in lines)
    return [datetime.strptime(line[1], "%Y-%m-%d %H:%M:%S,%f").timestamp() for line in found if line]


# --- Main ------------------------------------------------------------------------------------------------------------
def print_row(row: dict[str, Any]) -> None:
    """Print a row and flush the output."""
    print("  ".join(f"{column}: {value}" for column, value in row.items()), flush=True)


def main() -> None:
    """Run the selected part and append to its results."""
    args = parse_arguments()
    if args.part == "one":
        run_task(args.task)
        return
    parts = {"real": run_real, "simulated": run_simulated, "driver": run_driver}
    rows = parts[args.part](args)
    described = describe_environment("cpu") | {"ray": version("ray"), "cores": str(os.cpu_count())}
    append_rows(args.results or RESULTS / f"scaling_{args.part}.csv", [described | row for row in rows])


if __name__ == "__main__":
    main()
