"""From a place and a date to an event folder: chooses and fetches images from a STAC catalog."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import config
from catalogs.query import Box, Query
from catalogs.sources import SOURCES, Source
from cli.flags import (
    ScriptParser,
    add_color_arguments,
    add_folder,
    add_log_argument,
    add_number,
    calendar_date,
    finite,
    percentage,
    period,
    positive,
    positive_int,
)
from cli.script import keep_log, require_package, run_script
from utils import is_event_name

NEEDED = "get_event.py needs pystac-client: pip install -r requirements-stac.txt"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ScriptParser(description=__doc__)
    parser.add_argument("--name", help="name of the event folder; it begins with the category, as in 3_landslide_x")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--bbox",
        type=finite,
        nargs=4,
        metavar=("W", "S", "E", "N"),
        help="the place, in degrees of longitude and latitude",
    )
    place.add_argument("--geojson", type=Path, metavar="FILE", help="a file whose bounding box is the place")
    parser.add_argument("--date", type=calendar_date, help="first date on which the event can be seen, as 2024-06-30")
    catalog = parser.add_mutually_exclusive_group()
    catalog.add_argument("--source", choices=SOURCES, help="a known catalog, with its collection and asset")
    catalog.add_argument("--stac", metavar="URL", help="address of a STAC API or catalog, or its file or folder")
    parser.add_argument(
        "--collection",
        metavar="ID",
        help="collection of the catalog (default: the source's, or all of a static catalog)",
    )
    parser.add_argument("--asset", help="asset of the items with the image (default: the source's, or visual)")
    parser.add_argument(
        "--before",
        type=period,
        default=config.CATALOG_BEFORE,
        help="how long before the date historical images are searched, as 18m (default: %(default)s)",
    )
    parser.add_argument(
        "--after",
        type=period,
        default=config.CATALOG_AFTER,
        help="how long from the date on the monitor image is searched (default: %(default)s)",
    )
    add_number(parser, "--dates", positive_int, config.CATALOG_DATES, "number of historical images")
    add_number(
        parser,
        "--max-cloud",
        percentage,
        config.CATALOG_MAX_CLOUD,
        "largest share of an image under clouds, percent of its pixels in the box",
    )
    add_number(parser, "--size", positive_int, config.CATALOG_MAX_SIZE, "largest side of the images, pixels")
    parser.add_argument(
        "--resolution", type=positive, metavar="M", help="side of a pixel in metres (default: the monitor image's)"
    )
    parser.add_argument(
        "--crs", metavar="EPSG:N", help="CRS of the images (default: the monitor image's; UTM if that is in degrees)"
    )
    add_color_arguments(parser)
    parser.add_argument(
        "--images", nargs="+", metavar="ID", help="identifiers of the items to use (default: they are chosen)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what was found, chosen and why not, and write nothing"
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="print the collections of a static catalog, or with --collection its places by number of dates",
    )
    add_folder(parser, "--data-root", config.CATALOG_DATA_ROOT, "folder for the event folder")
    add_log_argument(parser)
    args = parser.parse_args(arguments)
    _check(parser, args)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with code 2 if a flag is missing."""
    if not args.source and not args.stac:
        parser.error("--source or --stac is needed")
    if args.list:
        return
    if not args.name or not args.date or not (args.bbox or args.geojson):
        parser.error("--name, --date, and --bbox or --geojson are needed")
    if not is_event_name(args.name) or "/" in args.name or "\\" in args.name:
        parser.error(f"argument --name: {args.name!r} is no event folder; it begins with 0_ to 6_, as in 3_landslide_x")


def source_of(args: argparse.Namespace) -> Source:
    """Return the known or the named catalog."""
    return SOURCES[args.source] if args.source else Source(args.stac, None, "visual", documentation="")


def query_of(args: argparse.Namespace) -> Query:
    """Return the query of a parsed command line. Raises UsageError if the place is invalid."""
    from catalogs.geojson import box_of_geojson  # loads GDAL

    source = source_of(args)
    return Query(
        source.stac,
        args.collection or source.collection,
        args.asset or source.asset,
        source.signed,
        Box.of(args.bbox) if args.bbox else box_of_geojson(args.geojson),
        args.date,
        args.before,
        args.after,
        args.dates,
        args.max_cloud,
        tuple(args.images or ()),
        args.bands,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the event, print the plan, or list a catalog; returns the exit code."""
    args = parse_arguments(arguments)
    require_package("pystac_client", NEEDED)
    # These load GDAL and pystac-client, which takes a second.
    from catalogs.cells import list_catalog
    from catalogs.get import EventSettings, get_event

    with keep_log(args.log_file):
        if args.list:
            return list_catalog(source_of(args).stac, args.collection, args.date)
        settings = EventSettings(args.name, args.data_root, args.size, args.resolution, args.crs, args.stretch)
        return get_event(query_of(args), settings, args.dry_run)


if __name__ == "__main__":
    run_script(main)
