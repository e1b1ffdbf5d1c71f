"""Report: a folder of web pages that shows an evaluation's events, for any browser, without a server or a network."""

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import config
from cli.flags import add_data_arguments, add_log_argument, positive_int
from cli.progress import run_events
from cli.script import keep_log, run_script
from report import figures
from report.event_page import write_event_page
from report.event_report import gather
from report.html import ASSETS, SHIPPED, script_data, viridis_script, write_text
from report.overview import Row, overview, row_of
from utils import LOG, Event, atomic_file, list_events


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument(
        "--result-root",
        type=Path,
        default=config.STAGE2_OUTPUT_DIR,
        help="where stage 2 wrote its maps (default: %(default)s)",
    )
    parser.add_argument(
        "--stage1-root",
        type=Path,
        default=config.STAGE1_OUTPUT_DIR,
        help="where stage 1 wrote its maps (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=config.REPORT_OUTPUT_DIR,
        help="folder of the report; its first page is index.html (default: %(default)s)",
    )
    parser.add_argument(
        "--max-width",
        type=positive_int,
        default=config.REPORT_MAX_WIDTH,
        help="longer side of the images in the report, pixels; larger ones are scaled down (default: %(default)s)",
    )
    parser.add_argument(
        "--figure",
        nargs=2,
        metavar=("EVENT", "FILE"),
        help="instead of the report, draw one figure of this event for print: .png (300 dpi) or .pdf (default: none)",
    )
    add_log_argument(parser)
    return parser.parse_args(arguments)


def write_assets(root: Path, rows: Sequence[Row]) -> None:
    """Write what the pages share: style, scripts, and the list of the events that have a page."""
    for name in SHIPPED:
        with atomic_file(root / "assets" / name) as part:
            shutil.copyfile(ASSETS / name, part)
    write_text(root / "assets" / "viridis.js", viridis_script())
    pages = [[row.slug, row.name.encode("utf-8", "replace").decode()] for row in rows if row.slug]
    write_text(root / "assets" / "events.js", f'"use strict";\nconst EVENTS = {script_data(pages)};\n')


def write_report(args: argparse.Namespace) -> int:
    """Write the report; returns the exit code."""
    listing = list_events(args.data_root, args.event)
    rows: list[Row] = []

    def process(event: Event, event_done: Callable[[], object]) -> None:
        report = gather(event, args.stage1_root, args.result_root)
        if report.missing:
            LOG.warning("%s: %s", event.name, "; ".join(report.missing))
        write_event_page(args.output, report, args.max_width, event_done)
        rows.append(row_of(report))

    summary = run_events("report", listing, lambda event: len(event.historical) + 1, process, unit="image")
    rows += [Row(name, int(name[0]), problem=problem) for name, problem in summary.skipped + summary.failed]
    rows.sort(key=lambda row: row.name)
    write_assets(args.output, rows)
    write_text(args.output / "index.html", overview(rows, args.data_root.absolute().name))
    LOG.info("report: %s", (args.output / "index.html").absolute())
    return summary.exit_code


def write_figure(args: argparse.Namespace) -> int:
    """Draw one event for print; returns the exit code."""
    name, path = args.figure[0], Path(args.figure[1])
    figures.check_format(path)
    figures.require_matplotlib()

    def process(event: Event, event_done: object) -> None:
        figures.draw_event_figure(event, args.stage1_root, args.result_root, path)

    return run_events("figure", list_events(args.data_root, name), lambda event: 1, process, unit="figure").exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report, or one figure; returns the exit code."""
    args = parse_arguments(arguments)
    with keep_log(args.log_file):
        return write_report(args) if args.figure is None else write_figure(args)


if __name__ == "__main__":
    run_script(main)
