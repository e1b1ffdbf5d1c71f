"""Measures time and peak host memory of both stages against the size of an event's rasters; needs GDAL.

    python -m benchmarks.bench_raster --device cpu --megapixels 1 4 16 65 130 --dates 5

The rasters are sparse: a synthetic scene in the first window, zeros elsewhere, which cost the network the same time.
Each size runs in its own process. Rows are appended to a CSV. For a shorter run, use fewer points:
ANOMALYCD_STAGE1_SAM_PARAMS='{"points_per_side": 8}' takes far less time and about 90 MiB less memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from osgeo import gdal

import config
import run
from benchmarks.measure import append_rows, describe_environment, measure
from cli.progress import follow_run
from demo.scenes import make_event
from pipeline.local import run_events_here
from pipeline.stage import count_windows
from sam.flags import SamFlags
from sam.registry import SAM_VARIANTS
from sam.settings import load_engine
from utils import list_events

RESULTS = Path(__file__).parent / "results" / "raster.csv"
SEED, CATEGORY = 14, 4  # of the scene: a fire
SCENE = 1024  # pixels
SHAPE = 13184 / 9840  # height over width of the largest published event


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time both stages against the size of the rasters.")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--model", choices=SAM_VARIANTS, default="vit_t", help="architecture (default: %(default)s)")
    parser.add_argument(
        "--megapixels", nargs="+", type=float, default=[1, 4, 16], help="sizes of a raster (default: 1 4 16)"
    )
    parser.add_argument("--dates", type=int, default=5, help="images, the monitor included (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # when this script calls itself, once per size
    return parser.parse_args()


def write_rasters(
    folder: Path, height: int, width: int, dates: int, side: int = SCENE, *, repeated: bool = False
) -> None:
    """Write an event's images, in the published layout.

    `side`: of the scene, pixels. It fills the first window, or with `repeated`, the whole image.
    """
    scene = make_event(SEED, CATEGORY, side, dates - 1)
    repeats = (-(-height // side), -(-width // side), 1) if repeated else (1, 1, 1)
    names = [f"normal_{2000 + date}0101.tif" for date in range(dates - 1)] + ["anomaly_20210101.tif"]
    folder.mkdir(parents=True)
    for name, image in zip(names, (*scene.historical, scene.monitor), strict=True):
        options = ["TILED=YES", "COMPRESS=DEFLATE", "SPARSE_OK=TRUE", "BIGTIFF=IF_SAFER"]
        raster = gdal.GetDriverByName("GTiff").Create(str(folder / name), width, height, 3, gdal.GDT_Byte, options)
        part = np.tile(image, repeats)[:height, :width]
        raster.WriteArray(np.ascontiguousarray(part.transpose(2, 0, 1)))
        del raster  # closes the file


def measure_event(args: argparse.Namespace) -> None:
    """Run both stages with a loaded model; print the number of windows and `Measurement` as JSON."""
    roots = ["--stage1-root", str(args.folder / "stage1"), "--stage2-root", str(args.folder / "stage2")]
    flags = ["--device", args.device, "--sam-model-type", args.model]
    arguments = run.parse_arguments(["--data-root", str(args.folder), *roots, *flags])
    engine, settings = load_engine(SamFlags.of(arguments))
    listing = list_events(args.folder)
    stages = run.plan(listing.events[0], arguments)
    windows = sum(len(stage.tile_event()) for stage in stages)
    with follow_run("both stages", listing, count_windows(lambda _: stages)) as progress:
        run_event = partial(run_events_here, listing, lambda _: stages, settings.identity, lambda: engine, progress)
        _, took = measure(args.device, run_event)
    if progress.summary.failed:
        sys.exit("the event failed")
    print(json.dumps([windows, *took]))


def main() -> None:
    """Run all sizes, print the table, append it to the results."""
    args = parse_arguments()
    if args.folder is not None:
        measure_event(args)
        return
    described = describe_environment(args.device) | {"model": args.model, "dates": str(args.dates)}
    for megapixels in args.megapixels:
        width = round((megapixels * 1e6 / SHAPE) ** 0.5)
        height = round(width * SHAPE)
        with tempfile.TemporaryDirectory() as folder:
            write_rasters(Path(folder) / "4_sparse", height, width, args.dates)
            this_script = [sys.executable, "-m", "benchmarks.bench_raster", *sys.argv[1:], "--folder", folder]
            done = subprocess.run(this_script, check=True, stdout=subprocess.PIPE, text=True)
        windows, seconds, host_bytes, device_bytes = json.loads(done.stdout.splitlines()[-1])
        row = {
            "width": str(width),
            "height": str(height),
            "windows": str(windows),
            "points per window": str(config.STAGE1_SAM_PARAMS["points_per_side"] ** 2),
            "seconds": f"{seconds:.1f}",
            "seconds per window": f"{seconds / windows:.2f}",
            "host MiB": f"{host_bytes / 2**20:.0f}",
            "device MiB": f"{device_bytes / 2**20:.0f}",
        }
        print("  ".join(f"{column}: {value}" for column, value in row.items()), flush=True)
        append_rows(args.results, [described | row])


if __name__ == "__main__":
    main()
