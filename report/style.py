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

# Distinguishable for the colour-blind, and in grey.
HIT, FALSE_ALARM, MISS = "#004488", "#ddaa33", "#bb5566"
INSIDE, OUTSIDE = "#aa1144", "#a9bcd0"  # of the label: a dark line, a light area
SCORE_COLORS = "viridis"
OUTLINE = "#ff3ca0"  # of binary maps over scores
THRESHOLD = "#555555"
NO_DATA: dict[str, Any] = {"facecolor": "#d0d0d0", "edgecolor": "#808080", "hatch": "//////"}
# Markers distinguish the categories without colour.
MARKERS = {0: "x", 1: "o", 2: "s", 3: "^", 4: "D", 5: "v", 6: "P"}


def category_color(category: int) -> str:
    """Return the colour of a category as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*CATEGORIES[category][1])
