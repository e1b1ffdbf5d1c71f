"""Draws figures for print. The only module that imports matplotlib, which is optional."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.progress import run_events
from cli.script import require_package
from report.event_panels import read_panels
from report.event_sheet import draw_sheet, sheet_size
from report.style import DPI, STYLE, WIDE_FONTS
from utils import Event, Listing, UsageError, atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf")
MILLIMETRES = 25.4  # per inch


def require_matplotlib() -> None:
    """Raise UsageError if matplotlib is not installed. Call it before long work."""
    require_package("matplotlib.figure", "figures need matplotlib: pip install -r requirements-report.txt")


def check_format(path: Path) -> None:
    """Raise UsageError for a file that is neither .png nor .pdf."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: figures are written as {' or '.join(FORMATS)}")


@contextmanager
def new_figure(path: Path, width: float, height: float, constrained_layout: bool = True) -> Iterator["Figure"]:
    """Yield an empty figure of `width` x `height` millimetres; write it to `path` if the block succeeds.

    The file is PNG or PDF by the suffix, has 300 dots per inch, and is written atomically. `constrained_layout`: let
    matplotlib make room for axes and their labels. Raises UsageError without matplotlib or for another suffix, OSError
    if the file cannot be written.
    """
    check_format(path)
    require_matplotlib()
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.font_manager import get_font_names

    fonts = ["DejaVu Sans", *(name for name in WIDE_FONTS if name in get_font_names())]
    # Start from matplotlib's defaults, so that the user's own style does not change a figure.
    with matplotlib.style.context(["default", STYLE | {"font.family": fonts}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a character that no font has is drawn as a box
        figure = Figure(
            (width / MILLIMETRES, height / MILLIMETRES), dpi=DPI, layout="constrained" if constrained_layout else None
        )
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix.lower()[1:], dpi=DPI)
    atomic_write(path, content.getvalue())


def draw_event_figure(event: Event, stage1_root: Path, result_root: Path, path: Path) -> None:
    """Draw one event for print: all dates, the maps of both stages, label, result, scores, scale bar.

    `stage1_root`, `result_root`: where stage 1 and stage 2 wrote their maps. `path`: a .png (300 dots per inch) or .pdf
    file, 180 mm wide. Binary maps and scores are those of config.py's thresholds. Images are read with the options
    recorded in the maps' tags, in strips, whatever their size.

    Raises UsageError without matplotlib or for another suffix, before anything is read; EventError if an image or a
    map is missing, damaged, or of another size; OSError if the figure cannot be written.
    """
    check_format(path)
    require_matplotlib()
    panels = read_panels(event, stage1_root, result_root)
    with new_figure(path, *sheet_size(panels), constrained_layout=False) as figure:
        draw_sheet(figure, panels)


def draw_figure(listing: Listing, stage1_root: Path, result_root: Path, path: Path) -> int:
    """Draw the only event of a listing; returns the exit code. Raises UsageError as `new_figure` does."""
    check_format(path)
    require_matplotlib()

    def process(event: Event, event_done: object) -> None:
        draw_event_figure(event, stage1_root, result_root, path)

    return run_events("figure", listing, lambda event: 1, process, unit="figure").exit_code
