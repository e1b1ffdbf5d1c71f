"""Command-line flags shared by several scripts, and the types of their values. Imports no large library."""

import argparse
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import NoReturn, TypeVar

import config

MOST_DAYS = 36_500
Number = TypeVar("Number", int, float)


class ScriptParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(2, f"error: {message} ({self.prog} --help lists all flags)\n")


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


def add_window_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--overlap` and `--tolerance`."""
    parser.add_argument(
        "--overlap",
        type=not_negative_int,
        default=0,
        metavar="PX",
        help="let neighbouring windows overlap by PX pixels; a pixel takes the score of the window in which it lies "
        "deepest; takes more windows (default: 0, the published layout)",
    )
    parser.add_argument(
        "--tolerance",
        type=feature_cells,
        default=0,
        metavar="K",
        help="compare each region with its best match within K feature cells of the other image (16 pixels each in a "
        "window of 1024), against images that do not fit exactly, and leaning buildings (default: 0, as published)",
    )


def check_overlap(parser: argparse.ArgumentParser, overlap: int, *sides: int) -> None:
    """Exit with code 2 if windows of one of these sides would overlap by more than a half."""
    most = min(sides) // 2
    if overlap > most:
        parser.error(f"argument --overlap: {overlap} is above {most}, half of the smallest window")


def add_stage2_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for what stage 2 writes in addition: `--explain`, `--simplify` and so on."""
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
    parser.add_argument(
        "--split-regions",
        action="store_true",
        help="keep regions apart that touch but differ in score by more than 0.05 (default: no, as in the published "
        "evaluation's map)",
    )


def add_folder(parser: argparse.ArgumentParser, flag: str, default: Path, role: str) -> None:
    """Add a flag for a folder. `role`: what the folder is, for the help text."""
    parser.add_argument(flag, type=Path, default=default, help=f"{role} (default: %(default)s)")


def add_number(
    parser: argparse.ArgumentParser, flag: str, kind: Callable[[str], float], default: float, role: str
) -> None:
    """Add a flag for a number. `kind`: an argparse type. `role`: what the number is, for the help text."""
    parser.add_argument(flag, type=kind, default=default, help=f"{role} (default: %(default)s)")


def buffer_widths(text: str) -> tuple[float, ...]:
    """An argparse type: widths in metres, 0 or greater, as in `0,10,20`; sorted, each once."""
    return tuple(sorted({not_negative(part) for part in text.split(",")}))


def band_numbers(text: str) -> tuple[int, ...]:
    """An argparse type: three band numbers, as in `3,2,1`."""
    found = re.fullmatch(r"([1-9]\d*),([1-9]\d*),([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: needs three band numbers, 1 or greater, as in 3,2,1")
    return tuple(map(int, found.groups()))


def _number(kind: type[Number], is_valid: Callable[[Number], bool], needs: str) -> Callable[[str], Number]:
    """Return an argparse type for numbers. `needs`: what is valid, for messages."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not is_valid(value):
            raise argparse.ArgumentTypeError(f"{text}: needs {needs}")
        return value

    return parse


finite = _number(float, isfinite, "a number")
not_negative = _number(float, lambda value: isfinite(value) and value >= 0, "a number, 0 or more")
positive = _number(float, lambda value: isfinite(value) and value > 0, "a number above 0")
feature_cells = _number(int, lambda value: 0 <= value <= 8, "a whole number from 0 to 8")
fraction = _number(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
percentage = _number(float, lambda value: 0 <= value <= 100, "a number from 0 to 100")
positive_int = _number(int, lambda value: value > 0, "a whole number above 0")
not_negative_int = _number(int, lambda value: value >= 0, "a whole number, 0 or more")


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


def add_log_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--log-file`."""
    parser.add_argument(
        "--log-file", type=Path, help="file to append a full log to, with traces of all failures (default: none)"
    )
