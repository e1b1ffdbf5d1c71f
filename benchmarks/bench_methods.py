"""Scores AnomalyCD and the methods of baselines/ on event folders: one row per data root and method.

    python -m benchmarks.bench_methods --data-root my_data --output-root outputs/my_data

Maps that exist are kept, so a second call only scores. Events whose label marks nothing, and normal controls, are
places where nothing happened: what is flagged there is a false alarm. `everything` flags each whole image: a score that
a method should exceed. Seconds are those of the first event alone, with the libraries loaded.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import config
import run
from baselines import run as baselines
from baselines.dates import THRESHOLD
from benchmarks.measure import append_rows, describe_environment
from eval_metrics import Scores, average_scores, score_binary_map
from evaluation.event_maps import EvalSettings, EventMaps, open_event_maps
from evaluation.objects import ObjectCounts, average_precision, count_objects
from rasters.raster import MemoryRaster, Raster, read_strips
from sam.registry import SAM_VARIANTS
from utils import list_events

RESULTS = Path(__file__).parent / "results" / "methods.csv"
OURS = {"anomalycd": (), "anomalycd-tolerance-1": ("--tolerance", "1")}  # flags of run.py
COLUMNS = (
    "F1",
    "unweighted F1",
    "average precision",
    "object recall",
    "object precision",
    "object f1",
    "flagged without an event",
    "false alarms per quiet stack",
)


class Scored(NamedTuple):
    """One method's binary map of one event."""

    published: Scores
    unweighted: Scores
    objects: ObjectCounts
    average_precision: float
    flagged: float  # share of the pixels with data


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Score methods on event folders.")
    parser.add_argument("--data-root", type=Path, required=True, help="folder with one folder per event")
    parser.add_argument("--output-root", type=Path, required=True, help="folder for one folder of maps per method")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=[*OURS, *baselines.METHODS],
        default=["anomalycd", *baselines.METHODS],
        help="methods to score (default: all but anomalycd-tolerance-1)",
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--model", choices=SAM_VARIANTS, default="vit_t", help="SAM (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="weights (default: the official ones)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    return parser.parse_args()


def compute(method: str, args: argparse.Namespace, output: Path, event: str | None = None) -> Path:
    """Run a method over all events or one; returns the folder of its maps. Current maps are kept."""
    sam = ["--device", args.device, "--sam-model-type", args.model]
    sam += ["--sam-checkpoint", str(args.checkpoint)] if args.checkpoint else []
    common = ["--data-root", str(args.data_root), *sam, *(["--event", event] if event else [])]
    if method in OURS:
        roots = ["--stage1-root", str(output / "stage1"), "--stage2-root", str(output / "stage2")]
        code = run.main([*common, *roots, "--skip-existing-stage2", *OURS[method]])
        folder = output / "stage2"
    else:
        code, folder = baselines.main([method, *common, "--result-root", str(output)]), output
    if code:
        raise SystemExit(f"{method}: an event failed")
    return folder


def score(maps: EventMaps, label: Raster, flagged: Raster, precision: float) -> Scored:
    """Score a binary map. `precision`: average precision of the method's scores."""
    weighted, plain = (
        score_binary_map(flagged, maps.anomalies, label, weight) for weight in (config.EVAL_BACKGROUND_WEIGHT, 1)
    )
    pixels = np.sum(
        [
            (np.count_nonzero(of_flags & ~np.isnan(of_scores)), np.count_nonzero(~np.isnan(of_scores)))
            for of_flags, of_scores in zip(read_strips(flagged), read_strips(maps.anomalies), strict=True)
        ],
        axis=0,
    )
    objects = count_objects(flagged, maps.anomalies, label, config.EVAL_OBJECT_SHARE, maps.pixel_area)
    return Scored(weighted, plain, objects, precision, float(pixels[0] / pixels[1]))


def score_events(args: argparse.Namespace, folder: Path, threshold: float) -> Iterator[tuple[Scored, Scored]]:
    """Yield the scores of every event of a method, and of flagging everything."""
    settings = EvalSettings(stage2_threshold=threshold)
    for event in list_events(args.data_root).events:
        if event.label is None and event.category:
            continue
        maps = open_event_maps(event, folder, settings)
        label = maps.label or MemoryRaster(np.zeros(maps.anomalies.shape, np.uint8))  # of a normal control: nothing
        precision = average_precision(maps.curve.scores(1))
        everything = MemoryRaster(np.ones(maps.anomalies.shape, bool))
        yield score(maps, label, maps.anomalous, precision), score(maps, label, everything, 0)


def row(method: str, scored: Sequence[Scored], seconds: float | None) -> dict[str, str]:
    """Return the row of a method: averages of events with an anomaly, and what is flagged where nothing happened."""
    events = [each for each in scored if each.objects.labelled]
    quiet = [each for each in scored if not each.objects.labelled]
    values: dict[str, float] = {}
    if events:
        values["F1"] = average_scores([each.published for each in events]).f1
        values["unweighted F1"] = average_scores([each.unweighted for each in events]).f1
        values["average precision"] = float(np.mean([each.average_precision for each in events]))
        objects = ObjectCounts.sum([each.objects for each in events])
        values |= {f"object {name}": value for name, value in objects.scores._asdict().items()}
    if quiet:
        values["flagged without an event"] = float(np.mean([each.flagged for each in quiet]))
        values["false alarms per quiet stack"] = float(np.mean([each.objects.false_alarms for each in quiet]))
    return {
        "method": method,
        "events": str(len(events)),
        "quiet": str(len(quiet)),
        **{name: f"{values[name]:.4f}" if name in values else "" for name in COLUMNS},
        "seconds": "" if seconds is None else f"{seconds:.1f}",
    }


def main() -> None:
    """Compute and score every method, print the table, append its rows."""
    args = parse_arguments()
    rows, everything = [], []
    first = list_events(args.data_root).events[0].name
    for method in args.methods:
        folder = compute(method, args, args.output_root / method)
        with tempfile.TemporaryDirectory() as scratch:
            started = time.monotonic()
            compute(method, args, Path(scratch), first)
            seconds = time.monotonic() - started
        threshold = config.EVAL_STAGE2_FIXED_THRESH if method in OURS else THRESHOLD
        scored = list(score_events(args, folder, threshold))
        rows.append(row(method, [of_method for of_method, _ in scored], seconds))
        everything = [of_everything for _, of_everything in scored]
    rows.append(row("everything", everything, None) | {"average precision": ""})
    print("| " + " | ".join(rows[0]) + " |")
    print("|---" * len(rows[0]) + "|")
    for of_method in rows:
        print("| " + " | ".join(of_method.values()) + " |")
    described = describe_environment(args.device) | {
        "model": args.model,
        "points per side": str(config.STAGE1_SAM_PARAMS["points_per_side"]),
        "data": args.data_root.name,
    }
    append_rows(args.results, [described | of_method for of_method in rows])


if __name__ == "__main__":
    main()
