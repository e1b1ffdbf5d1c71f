"""Evaluation: recall, weighted precision and F1 of both stages for every labelled event."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config
from cli.flags import add_log_argument, fraction, positive_int
from cli.progress import run_events
from cli.script import keep_log, run_script
from eval_metrics import Scores
from evaluation.curves import EventCurves, curve_thresholds, event_curves
from evaluation.event_maps import EvalSettings, open_event_maps
from evaluation.tables import Result, averages, by_category, write_csv, write_json
from report import figures
from report import plots as eval_plots
from utils import CATEGORIES, LOG, Event, list_events


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
    parser.add_argument(
        "--output-json",
        type=Path,
        help="file for all results, averages and settings, beside the table (default: not written)",
    )
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIR",
        help=f"folder for plots, needs matplotlib: {', '.join(eval_plots.FILE_NAMES)} (default: none are drawn)",
    )
    add_log_argument(parser)
    return parser.parse_args(arguments)


def print_scores(title: str, stage1: Scores, stage2: Scores) -> None:
    """Print the published per-event block."""
    print(title)
    for name, scores in (("Stage1", stage1), ("Stage2", stage2)):
        print(f"  {name}  recall={scores.recall:.4f}  precision={scores.precision:.4f}  F1={scores.f1:.4f}")


def print_averages(results: list[Result]) -> None:
    """Print the averages of every category, then of all events."""
    groups = {f"{number}_ {CATEGORIES[number][0]}": members for number, members in by_category(results).items()}
    for title, members in (groups | {"all categories": results}).items():
        if members:
            plural = "" if len(members) == 1 else "s"
            print_scores(f"Average of {title} ({len(members)} event{plural})", *averages(members))


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate every labelled event; returns the exit code."""
    args = parse_arguments(arguments)
    if args.plots:
        figures.require_matplotlib()
        args.plots.mkdir(parents=True, exist_ok=True)
    settings, thresholds = EvalSettings.of(args), curve_thresholds(args.stage2_threshold)
    listing = list_events(args.data_root).first(args.max_events)
    results: list[Result] = []
    curves: list[EventCurves] = []

    def process(event: Event, event_done: object) -> str | None:
        if event.category == 0:
            return "a normal control, not evaluated"
        if event.label is None:
            return "no label, not evaluated"
        maps = open_event_maps(event, args.result_root, settings)
        result = Result(event, *maps.scores())
        if args.plots:
            curves.append(event_curves(maps, thresholds))
        results.append(result)
        return None

    with keep_log(args.log_file):
        summary = run_events("evaluation", listing, lambda event: 1, process, unit="event")
    for result in results:
        print_scores(result.event.name, result.stage1, result.stage2)
    print_averages(results)
    path = args.output_csv or args.result_root / config.EVAL_CSV_NAME
    write_csv(path, results)
    LOG.info("table: %s", path)
    if args.output_json:
        write_json(args.output_json, args, results, summary)
        LOG.info("results with settings: %s", args.output_json)
    if args.plots:
        eval_plots.draw_all(args.plots, results, curves, settings)
    return summary.exit_code


if __name__ == "__main__":
    run_script(main)
