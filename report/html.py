"""Renders the report's pages: templates, data for scripts, numbers as text, and marks without overlap."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from evaluation.event_maps import EvalSettings
from rasters.place import area_text
from report.style import OUTCOMES, category_color, rgb
from utils import CATEGORIES, atomic_write

ASSETS = Path(__file__).resolve().parent / "assets"
TEMPLATES = Path(__file__).resolve().parent / "templates"
# Copied into every report.
SHIPPED = ("report.css", "tables.js", "raster.js", "viewer.js", "charts.js", "review.js", "regions.js", "event.js")
MISSING = "–"  # instead of a missing number


def script_data(value: Any) -> Markup:
    """Encode a value as JSON that is valid JavaScript and cannot close a `<script>` element."""
    encoded = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII only
    return Markup(encoded.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def write_text(path: Path, content: str) -> None:
    """Write a text file atomically, in UTF-8."""
    atomic_write(path, content.encode())


def render(template: str, root: str, scripts: Sequence[str], **values: Any) -> str:
    """Render a page from a file of `templates`; all values except Markup are escaped.

    `root`: path to the report's folder, `./` or `../`. `scripts`: the files of its `assets` that the page loads.
    """
    return _environment().get_template(template).render(root=root, scripts=scripts, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_encodable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (area, category_color, category_name, coordinates, count_text, percent, score, text_color):
        environment.filters[function.__name__] = function
    return environment


def _encodable(value: Any) -> Any:
    """Replace characters that UTF-8 cannot encode, such as those of undecodable file names."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return value.encode("utf-8", "replace").decode()


def colors_script() -> str:
    """Return a script with the colours of scores, viridis, as 256 RGB triples, and those of OUTCOMES."""
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return f'"use strict";\nconst VIRIDIS = {script_data(colors.tolist())};\n' + (
        f"const OUTCOMES = {script_data([rgb(color) for color in OUTCOMES.values()])};\n"
    )


def category_name(category: int) -> str:
    """Return the category's name."""
    return CATEGORIES[category][0]


def text_color(category: int) -> str:
    """Return black or white, whichever has the higher contrast with the category's colour."""
    red, green, blue = CATEGORIES[category][1]
    return "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#fff"


def count_text(number: float | None) -> str:
    """Format a count, with a comma every three digits."""
    return MISSING if number is None else f"{number:,.0f}"


def area(square_metres: float | None) -> str:
    """Format an area; None: it is not known."""
    return MISSING if square_metres is None else area_text(square_metres)


def percent(share: float | None) -> str:
    """Format a share in percent; a small share is not rounded to 0."""
    if share is None:
        return MISSING
    return "< 0.01 %" if 0 < share < 0.0001 else f"{share:.2%}".replace("%", " %")


def score(value: float | None) -> str:
    """Format a score with two decimals."""
    return MISSING if value is None else f"{value:.2f}"


def made_with_text(origin: Mapping[str, str]) -> str:
    """Return one line on how maps were made; `origin`: see `map_origin`."""
    texts = [f"{name}: {text}" for name, text in origin.items()] or ["maps without recorded origin"]
    return f"{'; '.join(texts)}; threshold of stage 2: {EvalSettings().stage2_threshold:g}."


def coordinates(point: tuple[float, float]) -> str:
    """Format longitude and latitude as text, latitude first."""
    longitude, latitude = point
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.4f}° {north}, {abs(longitude):.4f}° {east}"


def spread_marks(points: Sequence[tuple[float, float]], distance: float) -> list[tuple[float, float]]:
    """Return positions for marks near their points, at least `distance` apart."""
    placed: list[tuple[float, float]] = []
    for x, y in points:
        for step in range(2000):  # a spiral of steps about a quarter of the distance long
            radius = distance * 0.25 * math.sqrt(step)
            mark = x + radius * math.cos(2.4 * step), y + radius * math.sin(2.4 * step)
            if all(math.dist(mark, other) >= distance for other in placed):
                break
        placed.append(mark)
    return placed
