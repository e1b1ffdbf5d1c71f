"""Lays out the figure of an event: rows of dates, then maps, label and result, with their keys."""

import math
import string
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from report.event_panels import EventPanels
from report.pictures import ShrunkImage
from report.style import NO_DATA, OUTCOMES, OUTLINE, SCORE_COLORS, category_color, rgb
from utils import CATEGORIES, Event, date_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Millimetres.
WIDTH, MARGIN, GAP = 180.0, 3.0, 2.5
HEADER, CAPTION, KEYS, FOOTER = 9.0, 6.0, 12.0, 14.0
MAP_COLUMNS = 5
MIN_ASPECT, MAX_ASPECT = 0.4, 1.5  # height over width of a panel; other images leave part of it empty
GROUND, OBJECT = "#202020", "#585858"  # of the label: background, and objects that are not anomalies


class _Key(NamedTuple):
    color: str
    text: str


class _Sheet:
    """A figure with coordinates in millimetres from its top left corner."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        self.width, self.height = figure.get_size_inches() * 25.4

    def axes(self, x: float, y: float, width: float, height: float) -> "Axes":
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, **{"va": "center", **style})

    def panel(self, x: float, y: float, size: float, height: float, title: str, letter: str) -> "Axes":
        """Add axes for an image, with a caption above."""
        self.text(x, y + CAPTION - 2.2, letter, weight="bold")
        self.text(x + 2 + 1.3 * len(letter), y + CAPTION - 2.2, title, size=min(7, size / 4.8))
        axes = self.axes(x, y + CAPTION, size, height)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, linewidth=0.4, color="#404040")
        return axes

    def keys(self, x: float, y: float, keys: Sequence[_Key]) -> None:
        """Draw small squares in the keys' colours with their texts, one below the other."""
        for row, key in enumerate(keys):
            middle = y + 1.7 + 3.2 * row
            swatch = self.axes(x + 0.3, middle - 1, 2.6, 2)
            swatch.set(xticks=[], yticks=[], facecolor=key.color)
            swatch.spines[:].set(visible=True, linewidth=0.4, color="#404040")
            self.text(x + 4.2, middle, key.text, size=6.5)


def _columns(panels: EventPanels) -> int:
    return MAP_COLUMNS if len(panels.historical) < 25 else MAP_COLUMNS + 1


def _panel_size(panels: EventPanels, columns: int) -> tuple[float, float]:
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns
    return width, width * min(max(panels.shape[0] / panels.shape[1], MIN_ASPECT), MAX_ASPECT)


def sheet_size(panels: EventPanels) -> tuple[float, float]:
    """Return width and height of an event's figure in millimetres."""
    columns = _columns(panels)
    rows = math.ceil((len(panels.historical) + 1) / columns)
    date_row, map_row = (CAPTION + _panel_size(panels, count)[1] for count in (columns, MAP_COLUMNS))
    return WIDTH, HEADER + rows * date_row + map_row + KEYS + FOOTER


def draw_sheet(figure: "Figure", panels: EventPanels) -> None:
    """Draw an event on an empty figure of its `sheet_size`."""
    sheet, letters = _Sheet(figure), _letters()
    _draw_header(sheet, panels)
    y = _draw_dates(sheet, panels, letters)
    y = _draw_maps(sheet, panels, letters, y)
    _draw_footer(sheet, panels, y)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _letters() -> Iterator[str]:
    """Yield a to z, then aa, ab, and so on."""
    yield from string.ascii_lowercase
    yield from (first + second for first in string.ascii_lowercase for second in string.ascii_lowercase)


def _draw_header(sheet: _Sheet, panels: EventPanels) -> None:
    category = panels.event.category
    chip = sheet.axes(MARGIN, 3, 3.2, 3.2)
    chip.set(xticks=[], yticks=[], facecolor=category_color(category))
    chip.spines[:].set(visible=True, linewidth=0.4, color="#404040")
    sheet.text(MARGIN + 4.8, 4.6, _shortened(panels.event.name, 48), size=9, weight="bold")
    height, width = panels.shape
    size = f"{width} × {height} pixels"
    if panels.pixel_metres:
        size += f" of {panels.pixel_metres:.2g} m"
    sheet.text(WIDTH - MARGIN, 4.6, f"{CATEGORIES[category][0]}, {size}", ha="right", color="#404040")


def _draw_dates(sheet: _Sheet, panels: EventPanels, letters: Iterator[str]) -> float:
    """Draw all dates; returns the top of the next row."""
    columns = _columns(panels)
    width, height = _panel_size(panels, columns)
    dates = [*zip(panels.event.historical, panels.historical, strict=True), (panels.event.monitor, panels.monitor)]
    roles = [""] * (len(dates) - 2) + ["reference", "monitor"]
    for number, ((path, pixels), role) in enumerate(zip(dates, roles, strict=True)):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (width + GAP), HEADER + row * (CAPTION + height)
        axes = sheet.panel(x, y, width, height, f"{_shortened(date_text(path), 14)} {role}", next(letters))
        _show(axes, _with_alpha(pixels))
        if number == 0:
            _draw_scale_bar(axes, panels)
    return HEADER + math.ceil(len(dates) / columns) * (CAPTION + height)


def _show(axes: "Axes", picture: np.ndarray, **style: Any) -> None:
    """Show a picture, with hatching over pixels without data (NaN, or alpha 0)."""
    has_data = picture[..., 3] > 0 if picture.ndim == 3 else ~np.isnan(picture)
    if not has_data.all():
        height, width = picture.shape[:2]
        axes.fill([-0.5, width - 0.5, width - 0.5, -0.5], [-0.5, -0.5, height - 0.5, height - 0.5], lw=0, **NO_DATA)
    axes.imshow(picture, interpolation="none" if picture.ndim == 2 else "antialiased", zorder=2, **style)


def _with_alpha(pixels: ShrunkImage) -> np.ndarray:
    """Return the pixels as (h, w, 4) uint8, transparent if without data."""
    valid = np.ones(pixels.rgb.shape[:2], bool) if pixels.valid is None else pixels.valid
    return np.dstack([pixels.rgb, valid.astype(np.uint8) * 255])


def _draw_scale_bar(axes: "Axes", panels: EventPanels) -> None:
    """Draw a scale bar of a round length at the bottom left, on white; nothing if the pixel size is unknown."""
    if panels.pixel_metres is None:
        return
    height, width = panels.monitor.rgb.shape[:2]
    metres = panels.pixel_metres * panels.shape[1]  # of the panel's width
    length = bar_length(metres * 0.3)
    pixels, unit = length / metres * width, width / 100
    left, bottom = 4 * unit, height - 5 * unit
    ground = [left - 1.5 * unit, left + pixels + 1.5 * unit]
    axes.fill_between(ground, bottom - 12 * unit, bottom + 2.5 * unit, color="white", alpha=0.8, lw=0, zorder=3)
    axes.fill_between([left, left + pixels], bottom - 1 * unit, bottom + 1 * unit, color="black", lw=0, zorder=4)
    axes.text(left + pixels / 2, bottom - 2 * unit, length_text(length), ha="center", va="bottom", size=6, zorder=4)


def _draw_maps(sheet: _Sheet, panels: EventPanels, letters: Iterator[str], y: float) -> float:
    """Draw maps, label and result with their keys; returns the top of the next row."""
    width, height = _panel_size(panels, MAP_COLUMNS)
    titles = ["stage 1: change", "stage 2: filtered", "stage 2: anomaly", "result"]
    if panels.label is not None:
        titles.insert(3, "label")
    xs = [MARGIN + column * (width + GAP) for column in range(len(titles))]
    axes = [sheet.panel(x, y, width, height, title, next(letters)) for x, title in zip(xs, titles, strict=True)]
    keys_at = y + CAPTION + height + 1.2
    for x, panel, scores, binary, threshold in (
        (xs[0], axes[0], panels.changes, np.zeros(1, bool), None),
        (xs[1], axes[1], panels.filtered, panels.changed, panels.change_threshold),
        (xs[2], axes[2], panels.anomalies, panels.anomalous, panels.settings.stage2_threshold),
    ):
        _show(panel, scores, cmap=SCORE_COLORS, vmin=0, vmax=1)
        if binary.any() and not binary.all():
            panel.contour(binary, [0.5], colors=OUTLINE, linewidths=0.8, zorder=3)
        _draw_color_bar(sheet.axes(x, keys_at, width, 2), threshold)
    if panels.label is not None:
        _draw_label(sheet, axes[3], panels.event, panels.label, xs[3], keys_at)
    _draw_result(sheet, axes[-1], panels, xs[-1], keys_at)
    return keys_at + KEYS


def _draw_color_bar(axes: "Axes", threshold: float | None) -> None:
    """Draw the colour scale of the scores, from 0 to 1, with the threshold of the outlined binary map."""
    axes.imshow(np.linspace(0, 1, 256)[None], SCORE_COLORS, aspect="auto", extent=(0, 1, 0, 1))
    axes.set(yticks=[], xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
    axes.tick_params(length=1.5, pad=1.2)
    axes.spines[:].set(visible=True, linewidth=0.4)
    labels = axes.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")
    if threshold is not None:
        axes.axvline(min(threshold, 1), color=OUTLINE, lw=1.2)
        outlined = f"outlined: ≥ {threshold:.2f}" if threshold > 0 else "outlined: > 0"
        axes.text(0, -3.2, outlined, color="#c0006a", va="center", size=6.5)


def _draw_label(sheet: _Sheet, axes: "Axes", event: Event, label: np.ndarray, x: float, y: float) -> None:
    color = category_color(event.category)
    colors = np.array([rgb(GROUND), rgb(OBJECT), rgb(color)], np.uint8)
    axes.imshow(colors[np.clip(label, 0, 2).astype(int)], interpolation="nearest")
    keys = [_Key(color, "anomaly")]
    if (label == 1).any():
        keys.append(_Key(OBJECT, "object, not an anomaly"))
    sheet.keys(x, y, keys)


def _draw_result(sheet: _Sheet, axes: "Axes", panels: EventPanels, x: float, y: float) -> None:
    """Draw stage 2's binary map, compared with the label, over the monitor image in grey."""
    grey = panels.monitor.rgb.mean(axis=2, keepdims=True) * 0.5 + 110
    valid = ~np.isnan(panels.anomalies)
    flagged = panels.anomalous & valid
    if panels.label is None:
        layers = {_Key(OUTLINE, "flagged by stage 2"): flagged}
    else:
        anomaly = (panels.label > 1) & valid
        masks = (flagged & anomaly, flagged & ~anomaly, anomaly & ~flagged)
        layers = {_Key(color, name): mask for (name, color), mask in zip(OUTCOMES.items(), masks, strict=True)}
    picture = np.repeat(grey, 3, axis=2)
    for key, mask in layers.items():
        picture[mask] = 0.25 * picture[mask] + 0.75 * np.array(rgb(key.color))
    _show(axes, np.dstack([picture.astype(np.uint8), valid.astype(np.uint8) * 255]))
    sheet.keys(x, y, list(layers))


def _draw_footer(sheet: _Sheet, panels: EventPanels, y: float) -> None:
    """Write the scores of both stages, and notes on thresholds, scores and hatching."""
    stages = ("stage 1", "stage 2")
    if panels.scores:
        columns = {"": stages} | {
            title: tuple(f"{scores[index]:.2f}" for scores in panels.scores)
            for index, title in enumerate(("recall", "precision", "F1"))
        }
    else:
        flagged = (panels.changed, panels.anomalous)
        columns = {"": stages, "share flagged": tuple(f"{binary.mean():.1%}" for binary in flagged)}
    for column, (title, values) in enumerate(columns.items()):
        x = MARGIN + (0 if not column else 26 + 16 * (column - 1))
        align = "right" if column else "left"
        sheet.text(x, y + 1.5, title, ha=align, color="#404040")
        for row, value in enumerate(values):
            sheet.text(x, y + 5.2 + 3.5 * row, value, ha=align, weight="bold" if row else "normal", size=7.5)
    settings = panels.settings
    weight = f"In the precision, a false positive has weight {settings.background_weight:g}. " if panels.scores else ""
    notes = (
        f"Flagged pixels: stage 1 ≥ its {settings.quantile_threshold:g} quantile, "
        f"stage 2 ≥ {settings.stage2_threshold:g}. Grey hatching: no data.",
        f"{weight}Scores are 1 − cosine similarity.",
    )
    for row, note in enumerate(notes):
        sheet.text(WIDTH - MARGIN, y + 5.2 + 3.5 * row, note, ha="right", size=6.5, color="#404040")


def bar_length(metres: float) -> float:
    """Return the greatest of 1, 2 and 5 times a power of ten that is no longer than `metres`, for a scale bar."""
    power = 10.0 ** math.floor(math.log10(metres))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= metres * (1 + 1e-9))


def length_text(metres: float) -> str:
    """Format a length with its unit, as in `200 m` or `1.5 km`."""
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
