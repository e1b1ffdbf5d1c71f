"""Evaluation: recall, weighted precision and F1 of both stages for every labelled event."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config
from cli.flags import (
    ScriptParser,
    add_folder,
    add_log_argument,
    add_number,
    finite,
    fraction,
    not_negative,
    positive_int,
)
from cli.script import keep_log, run_script
from utils import LOG, list_events


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(description=__doc__)
    add_folder(parser, "--data-root", config.DEFAULT_DATA_ROOT, "folder with one folder per event, for its label")
    add_folder(parser, "--result-root", config.STAGE2_OUTPUT_DIR, "folder of stage 2's outputs")
    for flag, kind, default, role in (
        ("--max-events", positive_int, config.EVAL_MAX_EVENTS, "event folders to take, by name"),
        (
            "--quantile-threshold",
            fraction,
            config.EVAL_QUANTILE_THRESH,
            "quantile of the filtered change map; pixels at or above it are changed",
        ),
        ("--stage2-threshold", finite, config.EVAL_STAGE2_FIXED_THRESH, "lowest anomaly score that counts as anomaly"),
        (
            "--area-ratio",
            not_negative,
            config.EVAL_AREA_RATIO,
            "share of the image: smaller parts of stage 2 are dropped",
        ),
        ("--background-weight", not_negative, config.EVAL_BACKGROUND_WEIGHT, "of a false positive in the precision"),
    ):
        add_number(parser, flag, kind, default, role)
    parser.add_argument(
        "--normalize-anomaly-map",
        action="store_true",
        help="min-max scale each anomaly map before the threshold (default: no scaling)",
    )
    parser.add_argument(
        "--objects",
        type=fraction,
        nargs="?",
        const=config.EVAL_OBJECT_SHARE,
        metavar="SHARE",
        help="also score connected objects, found if this share of them is covered (if none is given, "
        f"{config.EVAL_OBJECT_SHARE:g}), pixels without weights, and false alarms per km2; see docs/method.md "
        "(default: not scored)",
    )
    parser.add_argument(
        "--map-name",
        help="file name of another method's score map in each event's folder of the result root: float32, compared "
        f"with both thresholds (default: {config.FILTERED_MAP_NAME} and {config.ANOMALY_MAP_NAME})",
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
        help="folder for plots of all scores, needs matplotlib (default: none)",
    )
    parser.add_argument(
        "--suggest-threshold",
        action="store_true",
        help="also print the stage 2 thresholds that labelled events and normal controls suggest, in steps of 0.004 up "
        "to 0.2 and of 0.016 up to 1; changes no result (default: not printed)",
    )
    parser.add_argument(
        "--reviewed",
        action="store_true",
        help="also print which share of the reviewed regions was accepted, over the threshold (default: not printed)",
    )
    add_log_argument(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate every labelled event; returns the exit code, 1 if an event failed or none was evaluated."""
    args = parse_arguments(arguments)
    # These load GDAL and scikit-image, which takes a second.
    from evaluation.evaluate import evaluate_events
    from evaluation.event_maps import EvalSettings, curve_thresholds
    from evaluation.reviewed import print_reviewed
    from evaluation.tables import print_objects, print_results, write_csv, write_json
    from evaluation.thresholds import print_suggestions
    from report import figures
    from report.plots import draw_all

    if args.plots:
        figures.require_matplotlib()
    settings = EvalSettings(
        args.quantile_threshold,
        args.stage2_threshold,
        args.area_ratio,
        args.background_weight,
        args.normalize_anomaly_map,
    )
    listing = list_events(args.data_root).first(args.max_events)
    with keep_log(args.log_file):
        evaluation = evaluate_events(
            listing,
            args.result_root,
            settings,
            with_curves=bool(args.plots) or args.suggest_threshold,
            with_controls=args.suggest_threshold,
            object_share=args.objects,
            map_name=args.map_name,
        )
        if not evaluation.results and not args.reviewed:
            LOG.error("%s", evaluation.why_empty())
    if evaluation.results:
        print_results(evaluation.results)
    if args.objects is not None:
        print_objects(evaluation.results, evaluation.false_alarms, args.objects)
    if args.suggest_threshold:
        print_suggestions(curve_thresholds(settings.stage2_threshold), evaluation.curves, evaluation.controls)
    if args.reviewed:
        print_reviewed([event.name for event in listing.events], args.result_root, settings.stage2_threshold)
    if not evaluation.results:
        return 0 if args.reviewed else 1
    path = args.output_csv or args.result_root / config.EVAL_CSV_NAME
    write_csv(path, evaluation.results)
    LOG.info("table: %s", path)
    if args.output_json:
        write_json(args.output_json, vars(args), evaluation.results, evaluation.summary, evaluation.false_alarms)
        LOG.info("results with settings: %s", args.output_json)
    if args.plots:
        draw_all(args.plots, evaluation.results, evaluation.curves, settings)
    return evaluation.summary.exit_code


if __name__ == "__main__":
    run_script(main)
