"""Tests and measures a GPU within a few minutes, what matters most first; needs no GDAL.

    python -m benchmarks.on_gpu --minutes 9

Every step is a process of its own, which is ended when the time is up. Its rows are in the CSVs of `--results` as soon
as it has them, and in the output. The steps that follow then are listed. On a CPU, try it with `--device cpu --minutes
2 --points-per-side 4`.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from cli.flags import positive_int

PROJECT = Path(__file__).parent.parent
LEAST_SECONDS = 10  # with less time left, no step is begun


class Step(NamedTuple):
    """A part of the measurement."""

    title: str
    module: str
    arguments: Sequence[str]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Test and measure a GPU within a few minutes.")
    parser.add_argument("--device", default="cuda:0", help="torch device (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9, help="after which it ends (default: %(default)s)")
    parser.add_argument("--points-per-side", type=positive_int, default=32, help="of stage 1 (default: %(default)s)")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(__file__).parent / "results",
        help="folder of the CSVs to append to (default: %(default)s)",
    )
    return parser.parse_args()


def steps(device: str, results: Path) -> list[Step]:
    """Return what is done, in order."""

    def step(title: str, module: str, *flags: str) -> Step:
        csv = results / f"{module.removeprefix('bench_')}.csv"
        return Step(title, f"benchmarks.{module}", ["--device", device, "--results", str(csv), *flags])

    vit_b, precisions, small = ("--model", "vit_b", "--random"), ("--precision", "fp32", "bf16"), ("--size", "1024")
    found = [
        Step("tests that need a GPU", "pytest", ["-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py"]),
        step("vit_t, 1024 pixels, alone", "bench_pipeline", *precisions, *small, "--alone"),
        step("kernels of vit_t, 1024 pixels", "bench_kernels", *small),
        step("vit_b, against the literal method", "bench_pipeline", *vit_b, *precisions),
        step("vit_t, against the literal method", "bench_pipeline", *precisions),
        step("vit_b, compiled, alone", "bench_pipeline", *vit_b, *precisions, "--compile", "--alone"),
        step("vit_b, 1024 pixels, against the literal method", "bench_pipeline", *vit_b, *precisions, *small),
        step("vit_t, 1024 pixels, against the literal method", "bench_pipeline", *precisions, *small),
        step("kernels of vit_b, 1024 pixels", "bench_kernels", *vit_b, *small),
    ]
    if importlib.util.find_spec("osgeo"):
        found.insert(5, step("vit_t, an event of 16 megapixels", "bench_raster", "--megapixels", "16"))
    return found


def run_step(step: Step, points_per_side: int, seconds: float) -> int | None:
    """Run a step for up to `seconds`. Returns its exit code; None: it was ended, with all processes that it started."""
    parameters = {"ANOMALYCD_STAGE1_SAM_PARAMS": json.dumps({"points_per_side": points_per_side})}
    command = [sys.executable, "-m", step.module, *step.arguments]
    with subprocess.Popen(command, cwd=PROJECT, env=os.environ | parameters, start_new_session=True) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def utilisation_noted() -> Iterator[list[int]]:
    """Yield a list that holds, after the block, the GPU's utilisation in per cent, five times a second.

    It stays empty without nvidia-smi.
    """
    noted: list[int] = []
    if shutil.which("nvidia-smi") is None:
        yield noted
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with TemporaryFile("w+") as lines, subprocess.Popen(query, stdout=lines, stderr=subprocess.DEVNULL) as sampler:
        try:
            yield noted
        finally:
            sampler.terminate()
            sampler.wait()
            lines.seek(0)
            noted += [int(line) for line in lines.read().split() if line.isdigit()]


def main() -> int:
    """Run the steps, and list what became of them; returns the exit code, 1 if any failed."""
    args = parse_arguments()
    end = time.monotonic() + 60 * args.minutes
    outcomes: list[str] = []
    failed = False
    for step in steps(args.device, args.results.absolute()):
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            outcomes.append(f"not run: {step.title}")
            continue
        print(f"\n--- {step.title}", flush=True)
        started = time.monotonic()
        with utilisation_noted() as utilisation:
            code = run_step(step, args.points_per_side, left)
        failed |= bool(code)
        outcome = {None: "not finished in time", 0: "done"}.get(code, f"failed with exit code {code}")
        busy = f", GPU {sum(utilisation) / len(utilisation):.0f} % busy" if utilisation else ""
        outcomes.append(f"{outcome} in {time.monotonic() - started:.0f} s{busy}: {step.title}")
    print("\n" + "\n".join(outcomes))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
