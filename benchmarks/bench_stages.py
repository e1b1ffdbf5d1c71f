"""Times `run.py --stage all` against `run_stage1.py`, then `run_stage2.py`: the gain from keeping features.

    python -m benchmarks.bench_stages --device cpu --size 1024 --dates 5

Needs GDAL. Times include process start and loading of the weights, as for a user.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench_raster import write_rasters
from benchmarks.measure import append_rows, describe_environment
from sam.registry import SAM_VARIANTS

RESULTS = Path(__file__).parent / "results" / "stages.csv"
PROJECT = Path(__file__).parent.parent


def main() -> None:
    """Run both ways, print, append to the results."""
    parser = argparse.ArgumentParser(description="Time both stages in one run against two runs.")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--model", choices=SAM_VARIANTS, default="vit_t", help="architecture (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="weights (default: the model's own file)")
    parser.add_argument("--size", type=int, default=1024, help="side of the images, pixels (default: %(default)s)")
    parser.add_argument("--dates", type=int, default=5, help="images, the monitor included (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    args = parser.parse_args()
    sam = ["--device", args.device, "--sam-model-type", args.model]
    if args.checkpoint is not None:
        sam += ["--sam-checkpoint", str(args.checkpoint)]
    with tempfile.TemporaryDirectory() as folder:
        write_rasters(Path(folder) / "4_event", args.size, args.size, args.dates)
        apart = timed(folder, "run_stage1.py", "--output-root", f"{folder}/1", *sam) + timed(
            folder, "run_stage2.py", "--stage1-root", f"{folder}/1", "--output-root", f"{folder}/2", *sam
        )
        roots = ("--stage1-root", f"{folder}/3", "--stage2-root", f"{folder}/4")
        together = timed(folder, "run.py", "--stage", "all", *roots, *sam)
    row = describe_environment(args.device) | {
        "model": args.model,
        "size": str(args.size),
        "dates": str(args.dates),
        "seconds apart": f"{apart:.1f}",
        "seconds together": f"{together:.1f}",
        "ratio": f"{apart / together:.2f}",
    }
    print("  ".join(f"{column}: {value}" for column, value in row.items()))
    append_rows(args.results, [row])


def timed(data_root: str, script: str, *arguments: str) -> float:
    """Run a script and return the seconds that it takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, script, "--data-root", data_root, *arguments], cwd=PROJECT, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
