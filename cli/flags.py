"""Command-line flags shared by several scripts, and the types of their values. Imports no large library."""

import argparse
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from math import isfinite
from pathlib import Path

import config

MOST_DAYS = 36_500


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--data-root` and `--event`."""
    add_folder(parser, "--data-root", config.DEFAULT_DATA_ROOT, "folder with one folder per event")
    parser.add_argument("--event", help="name of the one event folder to process (default: all of them)")


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--stretch`, `--bands` and `--align-shift`."""
    add_color_arguments(parser)
    parser.add_argument(
        "--align-shift",
        type=not_negative,
        default=0.0,
        metavar="PX",
        help="estimate how far each date is shifted against the reference image, and undo shifts of at most PX pixels "
        "(default: 0, no estimate)",
    )


def add_color_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--stretch` and `--bands`."""
    parser.add_argument(
        "--stretch",
        choices=config.STRETCH_MODES,
        default=config.STRETCH,
        help="how images of more than 8 bits are scaled to 8, all dates of an event alike: from the 2nd to the 98th "
        "percentile, from least to greatest value, or not at all (default: %(default)s)",
    )
    parser.add_argument(
        "--bands",
        type=band_numbers,
        metavar="R,G,B",
        help="numbers of the bands for red, green and blue, from 1 (default: the first three)",
    )


def add_overlap_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--overlap`."""
    parser.add_argument(
        "--overlap",
        type=not_negative_int,
        default=0,
        metavar="PX",
        help="let neighbouring windows overlap by PX pixels; a pixel takes the score of the window in which it lies "
        "deepest; takes more windows (default: 0, the published layout)",
    )


def check_overlap(parser: argparse.ArgumentParser, overlap: int, *sides: int) -> None:
    """Exit with code 2 if windows of one of these sides would overlap by more than a half."""
    most = min(sides) // 2
    if overlap > most:
        parser.error(f"argument --overlap: {overlap} is above {most}, half of the smallest window")


def add_stage2_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for what stage 2 writes in addition: `--explain`, `--simplify`, `--geojson`."""
    parser.add_argument(
        "--explain",
        action="store_true",
        help="also write how similar each region is to every historical date, and how unusual these dates were: "
        "AnomalyCD_explanation.tif, and fields of the polygons (default: no)",
    )
    parser.add_argument(
        "--simplify",
        type=not_negative,
        default=0.0,
        metavar="M",
        help="simplify the polygons' outlines by at most M metres (default: 0, they follow the pixels)",
    )
    parser.add_argument(
        "--geojson",
        action="store_true",
        help="also write the polygons as GeoJSON in WGS 84, for web maps (default: no)",
    )


def add_folder(parser: argparse.ArgumentParser, flag: str, default: Path, role: str) -> None:
    """Add a flag for a folder. `role`: what the folder is, for the help text."""
    parser.add_argument(flag, type=Path, default=default, help=f"{role} (default: %(default)s)")


def add_number(
    parser: argparse.ArgumentParser, flag: str, kind: Callable[[str], float], default: float, role: str
) -> None:
    """Add a flag for a number. `kind`: an argparse type. `role`: what the number is, for the help text."""
    parser.add_argument(flag, type=kind, default=default, help=f"{role} (default: %(default)s)")


def band_numbers(text: str) -> tuple[int, ...]:
    """An argparse type: three band numbers, as in `3,2,1`."""
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: needs three band numbers, 1 or greater, as in 3,2,1")
    return numbers


def finite(text: str) -> float:
    """An argparse type: a number, neither infinite nor NaN."""
    value = float(text)
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def not_negative(text: str) -> float:
    """An argparse type: a number, 0 or more."""
    value = finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive(text: str) -> float:
    """An argparse type: a number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def percentage(text: str) -> float:
    """An argparse type: a number from 0 to 100."""
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100")
    return value


def calendar_date(text: str) -> date:
    """An argparse type: a date, as in `2024-06-30`."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()
        if not 1900 <= day.year <= 2100:
            raise ValueError(text)
        return day
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: needs a date, as 2024-06-30") from None


def period(text: str) -> timedelta:
    """An argparse type: a number of days, months of 30 days or years, as in `30d`, `18m` or `2y`."""
    found = re.fullmatch(r"(\d{1,5})([dmy])", text)
    days = int(found[1]) * {"d": 1, "m": 30, "y": 365}[found[2]] if found else 0
    if found is None or days > MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text}: needs days, months or years, at most 100y, as 30d, 18m or 2y")
    return timedelta(days=days)


def not_negative_int(text: str) -> int:
    """An argparse type: an integer, 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive_int(text: str) -> int:
    """An argparse type: an integer above 0."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def fraction(text: str) -> float:
    """An argparse type: a number in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_log_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--log-file`."""
    parser.add_argument(
        "--log-file", type=Path, help="file to append a full log to, with traces of all failures (default: none)"
    )
