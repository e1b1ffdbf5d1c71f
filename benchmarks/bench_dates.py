"""Measures how many historical dates stage 2 needs, and whether the usual scores separate true from false regions.

    python -m benchmarks.bench_dates --plot docs/images/dates_needed.png

Both stages run once per synthetic event, with `--explain` and eight historical dates. A region's average does not
depend on the other dates, so the anomaly map of the k latest dates follows from the similarities with each date. F1 of
stage 2 is appended to a CSV for every event and k, and the regions found with all dates to a second one. Fewer points
per window take less time: ANOMALYCD_STAGE1_SAM_PARAMS='{"points_per_side": 16}'.

A region is true if at least half of its pixels lie in the label. Its novelty is its mean score less its usual score.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

import config
import run
from benchmarks.events import unseen_events
from benchmarks.measure import append_rows, describe_environment, read_whole
from demo.make_events import write_event
from eval_metrics import BinaryMap, binarize_anomaly_map, score_binary_map
from evaluation.event_maps import EvalSettings, open_event_label
from evaluation.explanations import ExplanationMap, explain_regions
from evaluation.regions import measure_regions
from rasters.raster import MemoryRaster
from report.figures import new_figure, require_matplotlib
from sam.registry import SAM_VARIANTS
from utils import Event, read_event

RESULTS = Path(__file__).parent / "results" / "dates.csv"
REGION_RESULTS = Path(__file__).parent / "results" / "dates_regions.csv"
HISTORICAL_DATES = ("20180614", "20181002", "20190311", "20190620", "20191008", "20200317", "20200622", "20201005")
FIRST_SEED = 2_000_001
LOW_THRESHOLD = 0.02  # on the anomaly map: more regions, most of them false
COLOR = "#004488"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure F1 over the number of historical dates.")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--model", choices=SAM_VARIANTS, default="vit_t", help="SAM (default: %(default)s)")
    parser.add_argument("--events", type=int, default=30, help="number of events (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append F1 to (default: %(default)s)")
    parser.add_argument(
        "--regions", type=Path, default=REGION_RESULTS, help="CSV to append the regions to (default: %(default)s)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="for events and maps, which are used again if they are there (default: temporary)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw F1 over the number of dates, .png or .pdf")
    return parser.parse_args()


def run_events(folder: Path, args: argparse.Namespace) -> list[Event]:
    """Draw the events that are missing, run both stages, and return all events."""
    data = folder / "data"
    drawn = unseen_events(FIRST_SEED, args.events)
    for event in drawn:
        if not (data / event.name).exists():
            write_event(data, event, args.size, HISTORICAL_DATES)
    roots = ["--data-root", data, "--stage1-root", folder / "stage1", "--stage2-root", folder / "stage2"]
    flags = ["--explain", "--skip-existing-stage2", "--device", args.device, "--sam-model-type", args.model]
    if run.main([*map(str, roots), *flags]):
        raise SystemExit("an event failed")
    return [read_event(data / event.name) for event in drawn]


# --- F1 over the number of dates -------------------------------------------------------------------------------------
def latest_scores(explanation: np.ndarray, dates: int) -> np.ndarray:
    """Return the anomaly map of the `dates` latest dates, (H, W) float32, from an explanation, (H, W, all dates + 1).

    All pixels hold data.
    """
    similarity = explanation[..., -1 - dates : -1].max(axis=-1)
    return np.where(explanation.any(axis=-1), 1 - similarity, np.float32(0))


def f1_by_dates(explanation: np.ndarray, label: np.ndarray, settings: EvalSettings) -> list[float]:
    """Return F1 of stage 2 with the latest date, the two latest dates, and so on."""
    f1 = []
    for dates in range(1, explanation.shape[-1]):
        anomalies = MemoryRaster(latest_scores(explanation, dates))
        binary = binarize_anomaly_map(anomalies, settings.stage2_threshold, **settings.cleaning)
        f1.append(score_binary_map(binary, anomalies, MemoryRaster(label), settings.background_weight).f1)
    return f1


class Spread(NamedTuple):
    """F1 of all events with the same number of dates."""

    dates: int
    mean: float
    quartiles: tuple[float, float, float]  # 25, 50 and 75 %


def spread_by_dates(rows: Sequence[dict[str, str]]) -> list[Spread]:
    """Summarize the rows of the first CSV."""
    spreads = []
    for dates in sorted({int(row["dates"]) for row in rows}):
        f1 = [float(row["F1"]) for row in rows if int(row["dates"]) == dates]
        low, middle, high = np.percentile(f1, (25, 50, 75)).tolist()
        spreads.append(Spread(dates, float(np.mean(f1)), (low, middle, high)))
    return spreads


def draw(path: Path, spreads: Sequence[Spread], events: int) -> None:
    """Draw F1 over the number of dates. Raises UsageError without matplotlib."""
    dates = [spread.dates for spread in spreads]
    low, middle, high = zip(*(spread.quartiles for spread in spreads), strict=True)
    with new_figure(path, 90, 65) as figure:
        axes = figure.subplots()
        axes.fill_between(dates, low, high, color=COLOR, alpha=0.18, lw=0, label="25 to 75 % of the events")
        axes.plot(dates, [spread.mean for spread in spreads], "o-", color=COLOR, lw=1.4, ms=3.5, label="mean")
        axes.plot(dates, middle, color=COLOR, lw=1, ls="--", label="median")
        axes.set(ylim=(0, 1.02), xlabel="historical dates, the latest ones", ylabel="F1 of stage 2", xticks=dates)
        axes.set_title(f"F1 over historical dates, {events} synthetic events")
        axes.legend(loc="lower right")


# --- Regions ---------------------------------------------------------------------------------------------------------
def region_rows(
    binary: BinaryMap, anomalies: np.ndarray, explanation: ExplanationMap, label: np.ndarray
) -> list[dict[str, str]]:
    """Return a row for each region of a binary map that has a usual score."""
    regions, numbers = measure_regions(binary, MemoryRaster(anomalies))
    explained = explain_regions(explanation, binary, numbers, [region.pixels for region in regions])
    labelled = np.bincount(numbers[np.ix_(binary.rows, binary.columns)][label > 1], minlength=len(regions) + 1)
    return [
        {
            "pixels": str(region.pixels),
            "share in label": f"{labelled[number] / region.pixels:.4f}",
            "mean score": f"{region.mean_score:.6f}",
            "usual score": f"{found.usual_score:.6f}",
        }
        for number, (region, found) in enumerate(zip(regions, explained, strict=True), 1)
        if found.usual_score is not None
    ]


class Separation(NamedTuple):
    """How well true and false regions are separated: areas under the ROC curve, NaN if one kind is missing."""

    true: int
    false: int
    by_mean_score: float
    by_novelty: float


def separation(rows: Sequence[dict[str, str]]) -> Separation:
    """Summarize the rows of the second CSV that have the same threshold."""
    is_true = np.array([float(row["share in label"]) >= 0.5 for row in rows], bool)
    score, usual = (np.array([float(row[name]) for row in rows]) for name in ("mean score", "usual score"))
    true, false = int(is_true.sum()), int((~is_true).sum())
    if not true or not false:
        return Separation(true, false, float("nan"), float("nan"))
    return Separation(true, false, *(float(roc_auc_score(is_true, by)) for by in (score, score - usual)))


# --- Program ---------------------------------------------------------------------------------------------------------
def measure_event(event: Event, folder: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the rows of an event for both CSVs. `folder`: stage 2's."""
    settings, explanation = EvalSettings(), ExplanationMap(folder / config.EXPLANATION_NAME)
    label_raster = open_event_label(event, {})
    assert label_raster is not None
    values, label = read_whole(explanation), read_whole(label_raster)
    f1_rows = [
        {"event": event.name, "dates": str(dates), "F1": f"{f1:.4f}"}
        for dates, f1 in enumerate(f1_by_dates(values, label, settings), 1)
    ]
    anomalies, regions = latest_scores(values, len(explanation.dates)), []
    for threshold in (settings.stage2_threshold, LOW_THRESHOLD):
        binary = binarize_anomaly_map(MemoryRaster(anomalies), threshold, **settings.cleaning)
        key = {"event": event.name, "threshold": f"{threshold:g}"}
        regions += [key | row for row in region_rows(binary, anomalies, explanation, label)]
    return f1_rows, regions


def print_tables(f1_rows: Sequence[dict[str, str]], regions: Sequence[dict[str, str]]) -> None:
    """Print both summaries."""
    print("dates  mean F1   25 %    50 %    75 %")
    for spread in spread_by_dates(f1_rows):
        print(f"{spread.dates:5}   {spread.mean:.4f}  " + "  ".join(f"{value:.4f}" for value in spread.quartiles))
    print("threshold  true regions  false regions  AUC of the mean score  AUC of the novelty")
    for threshold in sorted({row["threshold"] for row in regions}, reverse=True):
        found = separation([row for row in regions if row["threshold"] == threshold])
        areas = f"{found.by_mean_score:21.4f}  {found.by_novelty:18.4f}"
        print(f"{threshold:>9}  {found.true:12}  {found.false:13}  {areas}")


def main() -> None:
    """Run all events, append their rows, print the tables, draw the plot."""
    args = parse_arguments()
    if args.plot is not None:
        require_matplotlib()
    described = describe_environment(args.device) | {
        "model": args.model,
        "points per side": str(config.STAGE1_SAM_PARAMS["points_per_side"]),
    }
    f1_rows: list[dict[str, str]] = []
    regions: list[dict[str, str]] = []
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
        for event in run_events(Path(folder), args):
            of_event = measure_event(event, Path(folder) / "stage2" / event.name)
            for rows, all_rows in zip(of_event, (f1_rows, regions), strict=True):
                all_rows += rows
    for path, rows in ((args.results, f1_rows), (args.regions, regions)):
        if rows:
            append_rows(path, [described | row for row in rows])
    print_tables(f1_rows, regions)
    if args.plot is not None:
        draw(args.plot, spread_by_dates(f1_rows), args.events)


if __name__ == "__main__":
    main()
