"""Profiles stage 1 of one window by the device's kernels: the ten that take most, and how long it is idle; no GDAL.

    python -m benchmarks.bench_kernels --device cuda:0

On a CPU, operators are listed instead of kernels. Rows are appended to a CSV.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_waterfall import Images, own_masks
from benchmarks.measure import append_rows, describe_environment
from benchmarks.programs import SEED, Weights, add_weights_arguments, own_engine
from demo.scenes import make_event

RESULTS = Path(__file__).parent / "results" / "kernels.csv"
CATEGORY = 4  # of the scene: a fire
LISTED = 10  # kernels


def main() -> None:
    """Profile, print the kernels, append them to the results."""
    parser = argparse.ArgumentParser(description="Show which kernels take the time of stage 1.")
    add_weights_arguments(parser)
    parser.add_argument("--size", type=int, default=1024, help="side of the window, pixels (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    args = parser.parse_args()
    event = make_event(SEED, CATEGORY, args.size, 1)
    images, weights = Images(event.historical[-1], event.monitor), Weights.of(args)
    engine = own_engine(weights, args.device)
    on_gpu = engine.device.type == "cuda"

    def window() -> None:
        own_masks(engine, engine.encode([engine.scale(image) for image in images]), images)
        if on_gpu:
            torch.cuda.synchronize(engine.device)

    if on_gpu:
        window()  # loads the kernels
    started = time.perf_counter()
    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    all_threads = None if on_gpu else _ExperimentalConfig(profile_all_threads=True)  # on a CPU, those that decode
    with profile(activities=activities, experimental_config=all_threads) as profiler:
        window()
    wall = time.perf_counter() - started
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for kernel in profiler.key_averages():
        seconds[kernel.key] += (kernel.self_device_time_total if on_gpu else kernel.self_cpu_time_total) / 1e6
        calls[kernel.key] += kernel.count
    busy = sum(seconds.values())
    print(
        f"{wall:.2f} s with the profiler, {sum(calls.values())} calls, "
        f"busy {busy:.2f} s, idle {max(1 - busy / wall, 0):.0%}"
    )
    described = describe_environment(args.device) | {
        "model": args.model,
        "weights": weights.name,
        "size": str(args.size),
    }
    rows = [
        {
            "seconds": f"{seconds[name]:.4f}",
            "share": f"{seconds[name] / busy:.3f}",
            "calls": str(calls[name]),
            "kernel": name,
        }
        for name in sorted(seconds, key=seconds.__getitem__, reverse=True)[:LISTED]
    ]
    for row in rows:
        print("  ".join(f"{value:>8}" for value in row.values())[:160])
    append_rows(args.results, [described | row for row in rows])


if __name__ == "__main__":
    main()
