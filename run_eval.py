"""Evaluation: recall, weighted precision and F1 of both stages for every labelled event."""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import config
from eval_metrics import Scores, average_scores, binarize_anomaly_map, binarize_by_quantile, score_binary_map
from img_io import open_label
from map_io import open_map, read_parameters
from runs import add_log_argument, keep_log, run_events, run_script
from utils import CATEGORIES, LOG, Event, EventError, fraction, list_events, positive_int, whole_file

CSV_COLUMNS = (
    "event_name",
    "stage1_recall",
    "stage1_precision",
    "stage1_f1",
    "stage2_recall",
    "stage2_precision",
    "stage2_f1",
)


class Result(NamedTuple):
    """The scores of both stages for one event."""

    event: Event
    stage1: Scores
    stage2: Scores


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data-root",
        type=Path,
        default=config.DEFAULT_DATA_ROOT,
        help="folder with one folder an event, for its label (default: %(default)s)",
    )
    parser.add_argument(
        "--result-root",
        type=Path,
        default=config.STAGE2_OUTPUT_DIR,
        help="where stage 2 wrote its maps (default: %(default)s)",
    )
    parser.add_argument(
        "--max-events",
        type=positive_int,
        default=config.EVAL_MAX_EVENTS,
        help="take the first so many event folders by name (default: %(default)s)",
    )
    parser.add_argument(
        "--quantile-threshold",
        type=fraction,
        default=config.EVAL_QUANTILE_THRESH,
        help="quantile of the filtered change map at which stage 1 counts as changed (default: %(default)s)",
    )
    parser.add_argument(
        "--stage2-threshold",
        type=float,
        default=config.EVAL_STAGE2_FIXED_THRESH,
        help="score at which stage 2 counts as anomaly (default: %(default)s)",
    )
    parser.add_argument(
        "--area-ratio",
        type=fraction,
        default=config.EVAL_AREA_RATIO,
        help="stage 2 components below this share of the image are dropped (default: %(default)s)",
    )
    parser.add_argument(
        "--background-weight",
        type=fraction,
        default=config.EVAL_BACKGROUND_WEIGHT,
        help="weight of a false positive in the precision (default: %(default)s)",
    )
    parser.add_argument(
        "--normalize-anomaly-map",
        action="store_true",
        help="min-max scale each anomaly map before the threshold (default: as it is)",
    )
    parser.add_argument(
        "--output-csv", type=Path, help=f"table to write (default: {config.EVAL_CSV_NAME} in the result root)"
    )
    add_log_argument(parser)
    return parser.parse_args(arguments)


def evaluate_event(event: Event, args: argparse.Namespace) -> Result:
    """Score both stages' maps of one event against its label."""
    folder = args.result_root / event.name
    filtered, anomalies = (open_map(folder / name) for name in (config.FILTERED_MAP_NAME, config.ANOMALY_MAP_NAME))
    made_with = read_parameters(folder / config.ANOMALY_MAP_NAME) or {}
    label = open_label(event, made_with.get("shifts", {}).get(event.monitor.name))
    if not filtered.shape == anomalies.shape == label.shape:
        raise EventError(f"{label.path} and the maps in {folder}: sizes differ; run both stages on these images again")
    binary = binarize_anomaly_map(
        anomalies,
        args.stage2_threshold,
        args.area_ratio,
        config.EVAL_CLOSING_SIZE,
        config.EVAL_CLOSING_RADIUS,
        args.normalize_anomaly_map,
    )
    changed = binarize_by_quantile(filtered, args.quantile_threshold)
    return Result(
        event,
        score_binary_map(changed, filtered, label, args.background_weight),
        score_binary_map(binary, anomalies, label, args.background_weight),
    )


def print_scores(title: str, stage1: Scores, stage2: Scores) -> None:
    """Print the published per-event block."""
    print(title)
    for name, scores in (("Stage1", stage1), ("Stage2", stage2)):
        print(f"  {name}  recall={scores.recall:.4f}  precision={scores.precision:.4f}  F1={scores.f1:.4f}")


def print_averages(results: list[Result]) -> None:
    """Print the averages of every category, then of all events."""
    groups = {
        f"{number}_ {name}": [result for result in results if result.event.category == number]
        for number, (name, _) in CATEGORIES.items()
    }
    groups["all categories"] = results
    for title, members in groups.items():
        if members:
            stage1, stage2 = (average_scores([getattr(m, stage) for m in members]) for stage in ("stage1", "stage2"))
            plural = "" if len(members) == 1 else "s"
            print_scores(f"Average of {title} ({len(members)} event{plural})", stage1, stage2)


def write_csv(path: Path, results: list[Result]) -> None:
    """Write one row an event, with the published columns."""
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(CSV_COLUMNS)
        for result in results:
            rows.writerow([result.event.name, *(f"{score:.6f}" for score in (*result.stage1, *result.stage2))])


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate every labelled event; returns the exit code."""
    args = parse_arguments(arguments)
    listing = list_events(args.data_root).first(args.max_events)
    results: list[Result] = []

    def process(event: Event, event_done: object) -> str | None:
        if event.category == 0:
            return "a normal control, not evaluated"
        if event.label is None:
            return "no label, not evaluated"
        results.append(evaluate_event(event, args))
        return None

    with keep_log(args.log_file):
        summary = run_events("evaluation", listing, lambda event: 1, process, unit="event")
    for result in results:
        print_scores(result.event.name, result.stage1, result.stage2)
    print_averages(results)
    path = args.output_csv or args.result_root / config.EVAL_CSV_NAME
    write_csv(path, results)
    LOG.info("table: %s", path)
    return summary.exit_code


if __name__ == "__main__":
    run_script(main)
