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
# Settings of the evaluation that have no flag.
FIXED_SETTINGS = ("EVAL_CLOSING_SIZE", "EVAL_CLOSING_RADIUS")


class Result(NamedTuple):
    """The scores of both stages for one event."""

    event: Event
    stage1: Scores
    stage2: Scores


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
        print(f"  {name}  recall={scores.recall:.4f}  precision={scores.precision:.4f}  F1={scores.f1:.4f}")


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write one row per event, with the published columns, in full precision.

    Raises OSError if the file cannot be written.
    """
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(CSV_COLUMNS)
    for result in results:
        rows.writerow([result.event.name, *result.stage1, *result.stage2])  # csv writes the repr of a float
    atomic_write(path, table.getvalue().encode())


def write_json(path: Path, settings: dict[str, Any], results: Sequence[Result], summary: Summary) -> None:
    """Write the scores of all events, averages, settings, the program's version, and events without scores.

    `settings`: values of the command line. `results`: at least one. Raises OSError if the file cannot be written.
    """
    content = {
        "program": program_tags(),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        | {name.lower(): getattr(config, name) for name in FIXED_SETTINGS},
        "config_overrides": config.OVERRIDDEN,
        "events": [
            {"event_name": result.event.name, "category": result.event.category} | _stages(result.stage1, result.stage2)
            for result in results
        ],
        "averages_by_category": [
            {"category": number, "name": CATEGORIES[number][0], "events": len(members)} | _stages(*averages(members))
            for number, members in by_category(results).items()
        ],
        "average": {"events": len(results)} | _stages(*averages(results)),
        "skipped": [{"event_name": name, "reason": reason} for name, reason in summary.skipped],
        "failed": [{"event_name": name, "reason": reason} for name, reason in summary.failed],
    }
    atomic_write(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _stages(stage1: Scores, stage2: Scores) -> dict[str, Any]:
    return {"stage1": stage1._asdict(), "stage2": stage2._asdict()}
