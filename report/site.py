"""Writes a report: an overview, one page per event, and their common assets."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from cli.progress import run_events
from report.event_page import write_event_page
from report.event_report import read_report
from report.html import ASSETS, SHIPPED, colors_script, script_data, write_text
from report.overview import Row, overview, row_of
from utils import LOG, Event, Listing, UsageError, atomic_file


def write_site(
    listing: Listing, data_root: Path, stage1_root: Path, result_root: Path, output: Path, max_width: int
) -> int:
    """Write the report of all events to the folder `output`; returns the exit code.

    `max_width`: the longer side of the images in the report, pixels. Raises UsageError if no event has any output.
    """
    folders = [root / event.name for event in listing.events for root in (stage1_root, result_root)]
    if folders and not any(folder.is_dir() for folder in folders):
        raise UsageError(
            f"{result_root} and {stage1_root}: no maps of the events in {data_root}; run both stages first, or name "
            "the folders with --result-root and --stage1-root"
        )
    rows: list[Row] = []

    def process(event: Event, event_done: Callable[[], object]) -> None:
        report = read_report(event, stage1_root, result_root)
        if report.missing:
            LOG.warning("%s: %s", event.name, "; ".join(report.missing))
        write_event_page(output, report, max_width, event_done)
        rows.append(row_of(report))

    summary = run_events("report", listing, lambda event: len(event.historical) + 1, process, unit="image")
    rows += [Row(name, int(name[0]), problem=problem) for name, problem in summary.skipped + summary.failed]
    rows.sort(key=lambda row: row.name)
    _write_assets(output, rows)
    write_text(output / "index.html", overview(rows, data_root.absolute().name))
    LOG.info("report: %s", (output / "index.html").absolute())
    return summary.exit_code


def _write_assets(root: Path, rows: Sequence[Row]) -> None:
    """Write the style, the scripts, and the list of the events that have a page."""
    for name in SHIPPED:
        with atomic_file(root / "assets" / name) as part:
            shutil.copyfile(ASSETS / name, part)
    write_text(root / "assets" / "colors.js", colors_script())
    pages = [[row.slug, row.name.encode("utf-8", "replace").decode()] for row in rows if row.slug]
    write_text(root / "assets" / "events.js", f'"use strict";\nconst EVENTS = {script_data(pages)};\n')
