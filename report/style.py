"""The common style of all figures: sizes, fonts and colours. Needs no matplotlib."""

from typing import Any

from utils import CATEGORIES

DPI = 300
# Points, at print size.
STYLE = {
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType: text stays text
}
# Fonts with Chinese, Japanese and Korean characters, for event names; only installed ones are used.
WIDE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei", "SimHei")

# Of pages and figures. Distinguishable for the colour-blind, and in grey.
OUTCOMES = {"true positive": "#22d3ee", "false positive": "#eb6400", "missed": "#be32dc"}
INSIDE, OUTSIDE = "#aa1144", "#a9bcd0"  # of the label: a dark line, a light area
SCORE_COLORS = "viridis"
OUTLINE = "#ff3ca0"  # of binary maps over scores
THRESHOLD = "#555555"
NO_DATA: dict[str, Any] = {"facecolor": "#d0d0d0", "edgecolor": "#808080", "hatch": "//////"}
# Markers distinguish the categories without colour.
MARKERS = {0: "x", 1: "o", 2: "s", 3: "^", 4: "D", 5: "v", 6: "P"}


def rgb(color: str) -> tuple[int, int, int]:
    """Return the red, green and blue of a colour `#rrggbb`, 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def category_color(category: int) -> str:
    """Return the colour of a category as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*CATEGORIES[category][1])
