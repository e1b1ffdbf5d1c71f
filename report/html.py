"""What the report's pages share: escaped text, data for scripts, numbers, the frame of a page, and marks that avoid
each other.
"""

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils import CATEGORIES, atomic_file

ASSETS = Path(__file__).resolve().parent / "assets"
SHIPPED = ("report.css", "tables.js", "raster.js", "viewer.js", "event.js")  # copied into every report
NOTHING = "–"  # where there is no number


def text(value: object) -> str:
    """Text for HTML, in elements and in quoted attributes, whatever a file's name holds."""
    return html.escape(str(value).encode("utf-8", "replace").decode(), quote=True)


def script_data(value: Any) -> str:
    """JSON that is safe within a `<script>` and is valid JavaScript: nothing in it closes the element."""
    encoded = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII only
    return encoded.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write_text(path: Path, content: str) -> None:
    """Write a file that appears whole or not at all."""
    write_bytes(path, content.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with atomic_file(path) as part:
        part.write_bytes(content)


def page(title: str, body: str, root: str, scripts: Sequence[str]) -> str:
    """A whole page. `root`: the way to the report's folder, `./` or `../`; `scripts`: of its `assets`."""
    tags = "\n".join(f'<script src="{root}assets/{name}" defer></script>' for name in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<link rel="stylesheet" href="{root}assets/report.css">
{tags}
</head>
<body>
{body}
</body>
</html>
"""


def viridis_script() -> str:
    """The colour map viridis, perceptually uniform and readable for the colour-blind, as 256 RGB triples."""
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return f'"use strict";\nconst VIRIDIS = {script_data(colors.tolist())};\n'


def category_tag(category: int) -> str:
    """The category's name beside its colour."""
    return f'<span class="category"><i style="background:{color(category)}"></i>{text(CATEGORIES[category][0])}</span>'


def color(category: int) -> str:
    """The category's colour for CSS and SVG."""
    return "#{:02x}{:02x}{:02x}".format(*CATEGORIES[category][1])


def ink(category: int) -> str:
    """Black or white, whichever is read better on the category's colour."""
    red, green, blue = CATEGORIES[category][1]
    return "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#fff"


def count(number: float | None) -> str:
    """A number of things, with a comma every three digits."""
    return NOTHING if number is None else f"{number:,.0f}"


def area(square_metres: float | None) -> str:
    """An area in m², or km² from one on."""
    if square_metres is None:
        return NOTHING
    return f"{square_metres / 1e6:,.2f} km²" if square_metres >= 1e6 else f"{square_metres:,.0f} m²"


def percent(share: float | None) -> str:
    """A share in percent; what is not nothing does not look like it."""
    if share is None:
        return NOTHING
    return "< 0.01 %" if 0 < share < 0.0001 else f"{share:.2%}".replace("%", " %")


def score(value: float | None) -> str:
    """A score with two decimals."""
    return NOTHING if value is None else f"{value:.2f}"


def coordinates(place: tuple[float, float]) -> str:
    """Longitude and latitude as people write them: latitude first."""
    longitude, latitude = place
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.4f}° {north}, {abs(longitude):.4f}° {east}"


def spread(points: Sequence[tuple[float, float]], distance: float) -> list[tuple[float, float]]:
    """Places for marks near their points, no two nearer to each other than `distance`."""
    placed: list[tuple[float, float]] = []
    for x, y in points:
        for step in range(2000):  # a spiral of steps about a quarter of the distance long
            radius = distance * 0.25 * math.sqrt(step)
            mark = x + radius * math.cos(2.4 * step), y + radius * math.sin(2.4 * step)
            if all(math.dist(mark, other) >= distance for other in placed):
                break
        placed.append(mark)
    return placed
