"""Report: a folder of web pages that shows an evaluation's events, for any browser, without a server or a network."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config
from cli.flags import (
    ScriptParser,
    add_data_arguments,
    add_folder,
    add_log_argument,
    add_number,
    buffer_widths,
    positive_int,
)
from cli.script import keep_log, require_package, run_script
from utils import list_events


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(description=__doc__)
    add_data_arguments(parser)
    add_folder(parser, "--result-root", config.STAGE2_OUTPUT_DIR, "folder of stage 2's outputs")
    add_folder(parser, "--stage1-root", config.STAGE1_OUTPUT_DIR, "folder of stage 1's outputs")
    add_folder(parser, "--output", config.REPORT_OUTPUT_DIR, "folder of the report; its first page is index.html")
    add_number(
        parser,
        "--max-width",
        positive_int,
        config.REPORT_MAX_WIDTH,
        "longer side of the images in the report, pixels; larger ones are scaled down",
    )
    parser.add_argument(
        "--figure",
        nargs=2,
        metavar=("EVENT", "FILE"),
        help="instead of the report, draw one figure of this event for print: .png (300 dpi) or .pdf (default: none)",
    )
    parser.add_argument(
        "--review",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="reviews that pages of a report exported (GeoJSON): write their verdicts into the events' polygons first; "
        "of several reviewers the majority counts, and a tie is uncertain (default: none)",
    )
    parser.add_argument(
        "--footprints",
        type=Path,
        metavar="FILE",
        help="vector file of buildings or other footprints: measure each on the events' maps first, and write "
        f"{config.FOOTPRINTS_NAME} beside these (default: none)",
    )
    parser.add_argument(
        "--footprint-buffers",
        type=buffer_widths,
        default=config.FOOTPRINT_BUFFERS,
        metavar="M,M,...",
        help="widths in metres by which footprints are enlarged; each is measured (default: 0,10,20)",
    )
    add_log_argument(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report, or one figure; returns the exit code."""
    args = parse_arguments(arguments)
    require_package("jinja2", "the report needs jinja2: pip install -r requirements-report.txt")
    # These load GDAL and OpenCV, which takes a second.
    from report.additions import apply_footprints, apply_reviews
    from report.figures import draw_figure
    from report.site import write_site

    with keep_log(args.log_file):
        if args.figure is not None:
            name, path = args.figure
            return draw_figure(list_events(args.data_root, name), args.stage1_root, args.result_root, Path(path))
        listing = list_events(args.data_root, args.event)
        codes = []
        if args.review:
            codes.append(apply_reviews(listing, args.review, args.result_root))
        if args.footprints:
            codes.append(apply_footprints(listing, args.footprints, args.footprint_buffers, args.result_root))
        codes.append(
            write_site(listing, args.data_root, args.stage1_root, args.result_root, args.output, args.max_width)
        )
        return max(codes)


if __name__ == "__main__":
    run_script(main)
