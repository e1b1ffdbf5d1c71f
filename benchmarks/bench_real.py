"""Measures what the historical dates give on events of one's own: F1 with the reference date alone and with all dates.

    python -m benchmarks.bench_real --data-root my_data --output-root outputs/my_data

Both stages run once per event, with `--explain`; maps that are there and current are kept. The scores with the
reference date alone follow from the similarities with each date, as in bench_dates.py. A normal control, and an event
whose label marks no pixel, are taken as places where nothing happened. One row per event and choice of dates is
appended to a CSV, and one per threshold to a second one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import config
import run
from benchmarks.bench_dates import latest_scores
from benchmarks.measure import append_rows, describe_environment, read_whole
from eval_metrics import Scores, ThresholdCurve, average_scores, threshold_curve
from evaluation.event_maps import EvalSettings, EventMaps, curve_thresholds, open_event_maps
from evaluation.explanations import ExplanationMap
from evaluation.thresholds import plateau
from rasters.raster import MemoryRaster
from sam.registry import SAM_VARIANTS
from utils import Event, list_events

RESULTS = Path(__file__).parent / "results" / "real.csv"
THRESHOLD_RESULTS = Path(__file__).parent / "results" / "real_thresholds.csv"
UNWEIGHTED = 1.0  # background weight


class Measured(NamedTuple):
    """Stage 2 of an event at all thresholds."""

    event: Event
    size: tuple[int, int]  # height and width, pixels
    labelled: int | None  # pixels; 0: nothing happened; None: unknown, there is no label
    curves: dict[int, ThresholdCurve]  # by the number of historical dates that were compared: 1 and all

    @property
    def curve(self) -> ThresholdCurve:
        """Stage 2 with all historical dates."""
        return self.curves[len(self.event.historical)]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure F1 with the reference date alone and with all dates.")
    parser.add_argument("--data-root", type=Path, required=True, help="folder with one folder per event")
    parser.add_argument("--output-root", type=Path, required=True, help="folder for the maps of both stages")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--model", choices=SAM_VARIANTS, default="vit_t", help="SAM (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    parser.add_argument(
        "--thresholds", type=Path, default=THRESHOLD_RESULTS, help="CSV of the thresholds (default: %(default)s)"
    )
    return parser.parse_args()


def measure_event(event: Event, folder: Path, settings: EvalSettings, thresholds: Sequence[float]) -> Measured:
    """Binarize the anomaly map of an event at all thresholds, with the reference date alone and with all dates."""
    maps = open_event_maps(event, folder, settings)
    anomalies = read_whole(maps.anomalies)
    explanation = read_whole(ExplanationMap(folder / event.name / config.EXPLANATION_NAME))
    scores = {1: np.where(np.isnan(anomalies), anomalies, latest_scores(explanation, 1))}
    scores[len(event.historical)] = anomalies
    curves = {
        dates: threshold_curve(MemoryRaster(of_dates), maps.label, thresholds, **settings.cleaning)
        for dates, of_dates in scores.items()
    }
    return Measured(event, anomalies.shape, labelled_pixels(event, maps), curves)


def labelled_pixels(event: Event, maps: EventMaps) -> int | None:
    """Return the number of pixels that the label marks as anomaly."""
    if maps.label is None:
        return 0 if event.category == 0 else None
    return int(np.count_nonzero(read_whole(maps.label) > 1))


def event_rows(measured: Measured, settings: EvalSettings) -> list[dict[str, str]]:
    """Return the rows of an event, at the threshold of the settings."""
    rows = []
    for dates, curve in measured.curves.items():
        at = curve.thresholds.index(settings.stage2_threshold)
        row = {
            "event": measured.event.name,
            "size": "x".join(map(str, reversed(measured.size))),
            "earlier dates": str(dates),
            "labelled": "" if measured.labelled is None else f"{measured.labelled / np.prod(measured.size):.4f}",
            "flagged": f"{curve.flagged[at] / curve.counts.valid.sum():.4f}",
        }
        weighted, plain = (curve.scores(weight)[at] for weight in (settings.background_weight, UNWEIGHTED))
        scores = {
            "recall": weighted.recall,
            "precision": weighted.precision,
            "F1": weighted.f1,
            "unweighted precision": plain.precision,
            "unweighted F1": plain.f1,
        }
        rows.append(row | {name: f"{score:.4f}" if measured.labelled else "" for name, score in scores.items()})
    return rows


def threshold_rows(events: Sequence[Measured], thresholds: Sequence[float], weight: float) -> list[dict[str, str]]:
    """Return one row per threshold: averages of labelled events, and the flagged share where nothing happened."""
    labelled = [measured.curve.scores(weight) for measured in events if measured.labelled]
    quiet = [measured.curve for measured in events if measured.labelled == 0]
    valid = sum(int(curve.counts.valid.sum()) for curve in quiet)
    rows = []
    for at, threshold in enumerate(thresholds):
        averages = average_scores([scores[at] for scores in labelled]) if labelled else Scores(0, 0, 0)
        flagged = sum(curve.flagged[at] for curve in quiet)
        rows.append(
            {
                "threshold": f"{threshold:g}",
                "background weight": f"{weight:g}",
                **{name: f"{score:.4f}" for name, score in averages._asdict().items()},
                "flagged without an event": f"{flagged / valid:.4f}" if valid else "",
            }
        )
    return rows


def print_plateau(events: Sequence[Measured], thresholds: Sequence[float], weight: float) -> None:
    """Print the best thresholds of the labelled events."""
    labelled = [measured.curve.scores(weight) for measured in events if measured.labelled]
    if labelled:
        found = plateau(thresholds, labelled)
        print(
            f"background weight {weight:g}: best F1 of the averages {found.best_f1:.4f}, within 0.01 of it from "
            f"{found.low:g} to {found.high:g} (middle {found.middle:g}; labelled events: {len(labelled)})"
        )


def main() -> None:
    """Run both stages, print the tables, append their rows."""
    args = parse_arguments()
    folders = {stage: args.output_root / stage for stage in ("stage1", "stage2")}
    flags = [
        "--skip-existing-stage2",
        "--explain",
        "--device",
        args.device,
        "--sam-model-type",
        args.model,
        "--data-root",
        str(args.data_root),
    ]
    flags += [text for stage, folder in folders.items() for text in (f"--{stage}-root", str(folder))]
    if run.main(flags):
        raise SystemExit("an event failed")
    settings = EvalSettings()
    thresholds = curve_thresholds(settings.stage2_threshold)
    events = [
        measure_event(event, folders["stage2"], settings, thresholds) for event in list_events(args.data_root).events
    ]
    rows = [row for measured in events for row in event_rows(measured, settings)]
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(value or "-" for value in row.values()))
    described = describe_environment(args.device) | {
        "model": args.model,
        "points per side": str(config.STAGE1_SAM_PARAMS["points_per_side"]),
        "threshold": f"{settings.stage2_threshold:g}",
    }
    append_rows(args.results, [described | row for row in rows])
    for weight in (settings.background_weight, UNWEIGHTED):
        print_plateau(events, thresholds, weight)
        sweep = threshold_rows(events, thresholds, weight)
        append_rows(args.thresholds, [described | {"data": args.data_root.name} | row for row in sweep])


if __name__ == "__main__":
    main()
