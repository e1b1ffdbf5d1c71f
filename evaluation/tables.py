"""Prints the scores, and writes them as the published table (CSV) and with all settings (JSON)."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import config
from cli.progress import Summary
from cli.provenance import program_tags
from eval_metrics import Scores, average_scores
from evaluation.objects import ObjectCounts, ObjectScores, average_object_scores
from utils import CATEGORIES, Event, atomic_write

CSV_COLUMNS = (
    "event_name",
    "stage1_recall",
    "stage1_precision",
    "stage1_f1",
    "stage2_recall",
    "stage2_precision",
    "stage2_f1",
)
# With --objects, for each stage, after the published columns.
OBJECT_COLUMNS = (
    "object_recall",
    "object_precision",
    "object_f1",
    "objects_labelled",
    "objects_found",
    "objects_flagged",
    "objects_right",
    "false_alarms_per_km2",
    "unweighted_precision",
    "unweighted_f1",
    "average_precision",
)
# Settings of the evaluation that have no flag.
FIXED_SETTINGS = ("EVAL_CLOSING_SIZE", "EVAL_CLOSING_RADIUS")


class Result(NamedTuple):
    """The scores of both stages for one event."""

    event: Event
    stage1: Scores
    stage2: Scores
    objects: tuple[ObjectScores, ObjectScores] | None = None  # of both stages, with --objects


def by_category(results: Sequence[Result]) -> dict[int, list[Result]]:
    """Group results by category; categories without results are left out."""
    groups = {number: [result for result in results if result.event.category == number] for number in CATEGORIES}
    return {number: members for number, members in groups.items() if members}


def averages(results: Sequence[Result]) -> tuple[Scores, Scores]:
    """Return the average scores of stage 1 and stage 2; needs at least one result."""
    return average_scores([result.stage1 for result in results]), average_scores([result.stage2 for result in results])


def print_results(results: Sequence[Result]) -> None:
    """Print the scores of every event in the published format, then the averages per category and over all events.

    `results`: at least one.
    """
    for result in results:
        _print_scores(result.event.name, result.stage1, result.stage2)
    groups = {f"{number}_ {CATEGORIES[number][0]}": members for number, members in by_category(results).items()}
    for title, members in (groups | {"all categories": results}).items():
        plural = "" if len(members) == 1 else "s"
        _print_scores(f"Average of {title} ({len(members)} event{plural})", *averages(members))


def _print_scores(title: str, stage1: Scores, stage2: Scores) -> None:
    print(title)
    for name, scores in (("Stage1", stage1), ("Stage2", stage2)):
        print(f"  {name}  {_rates(scores)}")


def print_objects(results: Sequence[Result], false_alarms: dict[str, ObjectCounts], share: float) -> None:
    """Print the scores per object and unweighted of every event and of all, then false alarms of normal controls.

    `results`: with these scores. `share`: see `score_objects`.
    """
    print(f"Per object (from {share:g} of it) and unweighted")
    scored = [(result.event.name, result.objects) for result in results if result.objects is not None]
    if len(scored) > 1:
        stage1, stage2 = zip(*(objects for _, objects in scored), strict=True)
        scored.append((f"All {len(scored)} events", (average_object_scores(stage1), average_object_scores(stage2))))
    for title, stages in scored:
        print(title)
        for name, (objects, pixels, average) in zip(("Stage1", "Stage2"), stages, strict=True):
            counts = f"found {objects.found} of {objects.labelled}, right {objects.right} of {objects.flagged}"
            print(f"  {name}  objects  {_rates(objects.scores)}  {counts}, {_alarms(objects)}")
            over_thresholds = "" if average is None else f"  average precision={average:.4f}"
            print(f"          pixels   {_rates(pixels)}{over_thresholds}")
    for name, objects in false_alarms.items():
        print(f"Normal control {name}: {_alarms(objects)}")


def _rates(scores: Scores) -> str:
    return f"recall={scores.recall:.4f}  precision={scores.precision:.4f}  F1={scores.f1:.4f}"


def _alarms(objects: ObjectCounts) -> str:
    density = objects.false_alarms_per_km2
    alarms = f"{objects.false_alarms} false alarm{'' if objects.false_alarms == 1 else 's'}"
    return alarms if density is None else f"{alarms} ({density:.3g} per km2)"


def _object_values(scores: ObjectScores) -> dict[str, float | None]:
    """Return the values of OBJECT_COLUMNS, by column."""
    objects, pixels, average = scores
    rates = (*objects.scores, *objects[:4], objects.false_alarms_per_km2, pixels.precision, pixels.f1, average)
    return dict(zip(OBJECT_COLUMNS, rates, strict=True))


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write one row per event, with the published columns, in full precision.

    Scores per object, if the results have them, follow in columns of their own. Raises OSError if the file cannot be
    written.
    """
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    stages = ("stage1", "stage2") if any(result.objects for result in results) else ()
    rows.writerow([*CSV_COLUMNS, *(f"{stage}_{column}" for stage in stages for column in OBJECT_COLUMNS)])
    for result in results:
        objects = [value for scores in result.objects or () for value in _object_values(scores).values()]
        rows.writerow([result.event.name, *result.stage1, *result.stage2, *objects])  # csv writes the repr of a float
    atomic_write(path, table.getvalue().encode())


def write_json(
    path: Path,
    settings: dict[str, Any],
    results: Sequence[Result],
    summary: Summary,
    false_alarms: dict[str, ObjectCounts],
) -> None:
    """Write the scores of all events, averages, settings, the program's version, and events without scores.

    `settings`: values of the command line. `results`: at least one. `false_alarms`: of normal controls. Raises OSError
    if the file cannot be written.
    """
    content = {
        "program": program_tags(),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        | {name.lower(): getattr(config, name) for name in FIXED_SETTINGS},
        "config_overrides": config.OVERRIDDEN,
        "events": [
            {"event_name": result.event.name, "category": result.event.category}
            | _stages(result.stage1, result.stage2, result.objects)
            for result in results
        ],
        "averages_by_category": [
            {"category": number, "name": CATEGORIES[number][0], "events": len(members)} | _stages(*averages(members))
            for number, members in by_category(results).items()
        ],
        "average": {"events": len(results)} | _stages(*averages(results)),
        "normal_controls": [
            {"event_name": name, "false_alarms": counts.false_alarms, "per_km2": counts.false_alarms_per_km2}
            for name, counts in false_alarms.items()
        ],
        "skipped": [{"event_name": name, "reason": reason} for name, reason in summary.skipped],
        "failed": [{"event_name": name, "reason": reason} for name, reason in summary.failed],
    }
    atomic_write(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _stages(stage1: Scores, stage2: Scores, objects: tuple[ObjectScores, ObjectScores] | None = None) -> dict[str, Any]:
    added = [_object_values(scores) for scores in objects or ()] or [{}, {}]
    return {"stage1": stage1._asdict() | added[0], "stage2": stage2._asdict() | added[1]}
