"""Measures what masked clouds cost: F1 of the demo events with clouds over the anomaly in two older dates.

    python -m benchmarks.bench_clouds --results clouds.csv

Three stacks are compared: all dates without clouds, the two dates clouded, and without these two dates. Stage 1 is the
same for all, since the reference and the monitor image have no clouds. Clouds are pixels without data, in the smallest
ellipse around the label's bounding box. Rows are appended to a CSV.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from osgeo import gdal

import config
import run
from benchmarks.measure import append_rows, describe_environment
from demo.make_events import DEMO_EVENTS, HISTORICAL_DATES, write_event
from evaluation.evaluate import evaluate_events
from evaluation.event_maps import EvalSettings
from sam.registry import SAM_VARIANTS
from utils import list_events

RESULTS = Path(__file__).parent / "results" / "clouds.csv"
CLOUDED = HISTORICAL_DATES[:2]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare F1 with and without clouds in two older dates.")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--model", choices=SAM_VARIANTS, default="vit_t", help="SAM (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    return parser.parse_args()


def clouds_over(label: np.ndarray) -> np.ndarray:
    """Return the pixels under clouds, (H, W) bool: the smallest ellipse around the label's bounding box."""
    rows, columns = np.nonzero(label > 1)
    (y, height), (x, width) = ((np.ptp(at) / 2 + at.min(), max(np.ptp(at), 1)) for at in (rows, columns))
    row, column = np.ogrid[: label.shape[0], : label.shape[1]]
    return ((row - y) / height) ** 2 + ((column - x) / width) ** 2 <= 0.5


def add_clouds(folder: Path) -> float:
    """Mask clouds in the older dates of an event; returns the share of the image that they cover."""
    (label,) = folder.glob("*_label.tif")
    clouds = clouds_over(gdal.Open(str(label)).ReadAsArray())
    for date in CLOUDED:
        source = gdal.Open(str(folder / f"normal_{date}.tif"))
        clouded = gdal.GetDriverByName("GTiff").CreateCopy(str(folder / "clouded.part"), source)
        clouded.CreateMaskBand(gdal.GMF_PER_DATASET)
        clouded.GetRasterBand(1).GetMaskBand().WriteArray(~clouds * np.uint8(255))
        del clouded  # closes the file
        (folder / "clouded.part").replace(folder / f"normal_{date}.tif")
    return float(clouds.mean())


def run_stage(data: Path, root: Path, result: str, args: argparse.Namespace, stage: str) -> None:
    """Run a stage over all events."""
    roots = ["--data-root", data, "--stage1-root", root / "stage1", "--stage2-root", root / result]
    flags = ["--stage", stage, "--device", args.device, "--sam-model-type", args.model]
    if run.main([*map(str, roots), *flags]):
        raise SystemExit("an event failed")


def stage2_scores(data: Path, results: Path) -> dict[str, float]:
    """Return F1 of stage 2 by event."""
    found = evaluate_events(list_events(data), results, EvalSettings(), with_curves=False)
    return {result.event.name: result.stage2.f1 for result in found.results}


def main() -> None:
    """Run all stacks, print the table, append it to the results."""
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", "YES")
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        data, root = Path(folder) / "data", Path(folder)
        for event in DEMO_EVENTS:
            if not event.name.startswith("0_"):
                write_event(data, event, args.size)
        run_stage(data, root, "clear", args, "all")
        clear = stage2_scores(data, root / "clear")
        shares = {name: add_clouds(data / name) for name in clear}
        run_stage(data, root, "clouded", args, "2")
        clouded = stage2_scores(data, root / "clouded")
        for date in CLOUDED:
            for path in data.glob(f"*/normal_{date}.tif"):
                path.unlink()
        run_stage(data, root, "fewer", args, "2")
        fewer = stage2_scores(data, root / "fewer")
    rows = [
        {
            **describe_environment(args.device),
            "model": args.model,
            "points per side": str(config.STAGE1_SAM_PARAMS["points_per_side"]),
            "event": name,
            "clouds": f"{shares[name]:.4f}",
            "F1 without clouds": f"{clear[name]:.4f}",
            "F1 with clouds": f"{clouded[name]:.4f}",
            "F1 without the dates": f"{fewer[name]:.4f}",
        }
        for name in clear
    ]
    for row in rows:
        print("  ".join(f"{column}: {value}" for column, value in list(row.items())[-5:]))
    append_rows(args.results, rows)


if __name__ == "__main__":
    main()
