"""Measures a place's own threshold: flagged is what scores above a multiple of its usual score (docs/method.md).

    python -m benchmarks.bench_usual --data-root my_data --result-root outputs/stage2

The maps are those of a run with `--explain`. Only events with two earlier dates or more have usual scores. One row per
rule is appended to a CSV: averages over events with an anomaly, and what is flagged where nothing happened.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import config
from benchmarks.measure import append_rows, describe_environment, read_whole
from eval_metrics import Scores, average_scores, binarize_anomaly_map, score_binary_map
from evaluation.event_maps import EvalSettings, open_event_maps
from evaluation.explanations import ExplanationMap
from rasters.raster import MemoryRaster
from utils import Event, list_events

RESULTS = Path(__file__).parent / "results" / "usual.csv"
FIXED = config.EVAL_STAGE2_FIXED_THRESH
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]  # scores and usual scores to flagged pixels


class Flagged(NamedTuple):
    """One rule's binary map of one event."""

    name: str
    share: float  # of the pixels
    weighted: Scores | None  # None: nothing happened
    unweighted: Scores | None


def rules() -> dict[str, Rule]:
    """Return the rules to try, by name."""

    def multiple(factor: float, least: float) -> Rule:
        return lambda scores, usual: (scores >= least) & (scores >= factor * usual)

    def less_half(scores: np.ndarray, usual: np.ndarray) -> np.ndarray:
        return scores - usual / 2 >= FIXED

    found: dict[str, Rule] = {"published": multiple(0, FIXED)}
    found |= {f"F = {factor:g}": multiple(factor, 0) for factor in (1, 1.25, 1.5, 2, 3)}
    found |= {f"{FIXED:g} and F = {factor:g}": multiple(factor, FIXED) for factor in (0.75, 1, 1.25, 1.5, 2)}
    return (
        found
        | {f"0.05 and F = {factor:g}": multiple(factor, 0.05) for factor in (1, 1.5)}
        | {"score - usual / 2": less_half}
    )


def flag(event: Event, result_root: Path, rule: Rule) -> Flagged:
    """Apply a rule to the maps of an event, then the evaluation's closing and dropping of components."""
    settings = EvalSettings()
    maps = open_event_maps(event, result_root, settings)
    scores = read_whole(maps.anomalies)
    usual = read_whole(ExplanationMap(result_root / event.name / config.EXPLANATION_NAME))[..., -1]
    above = MemoryRaster(np.where(np.isnan(scores), np.nan, (rule(scores, usual) & (scores > 0)).astype(np.float32)))
    binary = binarize_anomaly_map(above, 0.5, **settings.cleaning)
    share = float(read_whole(binary).mean())
    label = None if maps.label is None else MemoryRaster(read_whole(maps.label))
    if label is None or not (label.values > 1).any():
        return Flagged(event.name, share, None, None)
    weighted, unweighted = (score_binary_map(binary, above, label, weight) for weight in (0.1, 1))
    return Flagged(event.name, share, weighted, unweighted)


def main() -> None:
    """Apply all rules to all events, print and append their rows."""
    parser = argparse.ArgumentParser(description="Measure a place's own threshold.")
    parser.add_argument("--data-root", type=Path, required=True, help="folder with one folder per event")
    parser.add_argument("--result-root", type=Path, required=True, help="folder of stage 2's outputs, explained")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    args = parser.parse_args()
    events = [
        event
        for event in list_events(args.data_root).events
        if len(event.historical) > 1 and (event.label or not event.category)
    ]
    described = describe_environment("cpu") | {"data": args.data_root.name}
    for name, rule in rules().items():
        found = [flag(event, args.result_root, rule) for event in events]
        weighted = [each.weighted for each in found if each.weighted is not None]
        unweighted = [each.unweighted for each in found if each.unweighted is not None]
        quiet = [each.share for each in found if each.weighted is None]
        row = {
            "rule": name,
            "events": str(len(weighted)),
            "F1": f"{average_scores(weighted).f1:.4f}" if weighted else "",
            "unweighted F1": f"{average_scores(unweighted).f1:.4f}" if unweighted else "",
            "flagged without an event": f"{np.mean(quiet):.4f}" if quiet else "",
        }
        print("  ".join(row.values()))
        for each in found:
            f1 = f"F1 {each.unweighted.f1:.3f}, " if each.unweighted else ""
            print(f"    {each.name}: {f1}flagged {each.share:.3f}")
        append_rows(args.results, [described | row])


if __name__ == "__main__":
    main()
