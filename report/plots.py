"""Draws the plots of an evaluation: precision-recall curves, F1 by category, score histograms."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval_metrics import Scores
from evaluation.curves import (
    BIN_EDGES,
    EventCurves,
    average_curve,
    found_points,
    mean_shares,
)
from evaluation.event_maps import EvalSettings, curve_thresholds
from evaluation.tables import Result, averages, by_category
from report.figures import new_figure
from report.style import INSIDE, MARKERS, OUTSIDE, THRESHOLD, category_color
from utils import CATEGORIES, LOG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE_NAMES = ("precision_recall.png", "f1_by_category.png", "score_histograms.png")
NAMED_THRESHOLDS = (0.2, 0.4, 0.6, 0.8)  # labelled on the average curve, besides the evaluation's threshold
MIN_DISTANCE = 0.1  # least distance of a named threshold from the evaluation's
MANY_EVENTS = 12  # more than this many are drawn with thinner lines
LEVELS = (0.2, 0.4, 0.6, 0.8)  # of F1 in the precision-recall plot
LOWEST_SHARE = 1e-5  # of the pixels, in the histograms
# Colour and dashes of the average recall, precision and F1 over the threshold.
RATES = {"recall": ("#4477aa", "--"), "precision": ("#ee6677", "-."), "f1": ("#000000", "-")}


def draw_all(folder: Path, results: Sequence[Result], curves: Sequence[EventCurves], settings: EvalSettings) -> None:
    """Write the plots FILE_NAMES to a folder. `results` and `curves` hold the same events, at least one, in one order.

    Raises UsageError without matplotlib, OSError if a file cannot be written.
    """
    paths = [folder / name for name in FILE_NAMES]
    draw_precision_recall(paths[0], results, curves, settings)
    draw_f1_by_category(paths[1], results)
    draw_histograms(paths[2], results, curves, settings)
    LOG.info("plots: %s", ", ".join(map(str, paths)))


# --- Precision and recall --------------------------------------------------------------------------------------------
def draw_precision_recall(
    path: Path, results: Sequence[Result], curves: Sequence[EventCurves], settings: EvalSettings
) -> None:
    """Draw precision over recall of every event and of the average, and the average's rates over the threshold."""
    thresholds = curve_thresholds(settings.stage2_threshold)
    average = average_curve([curve.precision_recall for curve in curves])
    with new_figure(path, 180, 98) as figure:
        plane, rates = figure.subplots(1, 2)
        _draw_f1_levels(plane)
        _draw_event_curves(plane, results, curves, thresholds.index(settings.stage2_threshold))
        _draw_average(plane, thresholds, average, settings.stage2_threshold)
        plane.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision (weighted)", aspect="equal")
        plane.set_title("Stage 2 over its threshold")
        for name, (color, dashes) in RATES.items():
            values = [getattr(scores, name) for scores in average]
            rates.plot(thresholds, values, color=color, ls=dashes, lw=1.4, label=name.replace("f1", "F1"))
        _mark_threshold(rates, settings.stage2_threshold, 0.5)
        label = "threshold on the anomaly map" + (", scaled" if settings.normalize_anomaly_map else "")
        rates.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=label, ylabel="average over events")
        rates.set_title(f"Average of {len(results)} event{'s' if len(results) > 1 else ''}")
        figure.legend(
            *plane.get_legend_handles_labels(),
            loc="outside lower left",
            ncols=7,
            columnspacing=1.2,
            handletextpad=0.4,
            title=f"Lines: one event each; markers: at threshold {settings.stage2_threshold:g}",
            title_fontsize=6.5,
            alignment="left",
        )
        rates.legend(loc="lower left", bbox_to_anchor=(0.12, 0.02))


def _draw_f1_levels(axes: "Axes") -> None:
    """Draw lines of constant F1: precision = F1 * recall / (2 * recall - F1)."""
    for level in LEVELS:
        recall = np.linspace(level / 2 + 1e-3, 1, 200)
        precision = level * recall / (2 * recall - level)
        shown = precision <= 1
        axes.plot(recall[shown], precision[shown], color="#d0d0d0", lw=0.6, zorder=0)
        ground = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}
        axes.text(level, level, f"F1 {level}", color="#808080", size=6, ha="center", va="center", zorder=0, bbox=ground)


def _draw_event_curves(
    axes: "Axes", results: Sequence[Result], curves: Sequence[EventCurves], at_threshold: int
) -> None:
    """Draw the curve of every event, with a marker at the threshold of index `at_threshold`."""
    width = 0.9 if len(results) <= MANY_EVENTS else 0.5
    named: set[int] = set()
    for result, curve in sorted(zip(results, curves, strict=True), key=lambda pair: pair[0].event.category):
        category = result.event.category
        color, points = category_color(category), found_points(curve.precision_recall)
        axes.plot(*points.T, color="#404040", lw=width + 0.4, alpha=0.5, zorder=1)  # dark edge for light colours
        axes.plot(*points.T, color=color, lw=width, zorder=1)
        chosen = curve.precision_recall[at_threshold]
        label = None if category in named else CATEGORIES[category][0]
        style: dict[str, Any] = {
            "marker": MARKERS[category],
            "ms": 4,
            "mfc": color,
            "mec": "#303030",
            "mew": 0.5,
            "ls": "none",
        }
        axes.plot(chosen.recall, chosen.precision, label=label, zorder=2, clip_on=False, **style)
        named.add(category)


def _draw_average(axes: "Axes", thresholds: Sequence[float], average: Sequence[Scores], chosen: float) -> None:
    points = found_points(average)
    axes.plot(*points.T, color="white", lw=3.2, zorder=3)
    axes.plot(*points.T, color="black", lw=1.8, zorder=4, label="average")
    for threshold in (*(named for named in NAMED_THRESHOLDS if abs(named - chosen) >= MIN_DISTANCE), chosen):
        at = average[int(np.argmin(np.abs(np.array(thresholds) - threshold)))]
        if at.recall == 0:
            continue
        is_chosen = threshold == chosen
        axes.plot(at.recall, at.precision, "o", ms=5 if is_chosen else 3, mfc="white", mec="black", mew=1, zorder=5)
        axes.annotate(
            f"{threshold:g}",
            (at.recall, at.precision),
            xytext=(-3, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            weight="bold" if is_chosen else "normal",
            size=6.5,
            zorder=6,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
        )


def _mark_threshold(axes: "Axes", threshold: float, height: float) -> None:
    axes.axvline(threshold, color=THRESHOLD, lw=0.8, ls=":", zorder=1)
    axes.annotate(
        f"{threshold:g}",
        (threshold, height),
        xycoords=("data", "axes fraction"),
        xytext=(2, 0),
        textcoords="offset points",
        va="center",
        size=6.5,
        color=THRESHOLD,
    )


# --- F1 by category --------------------------------------------------------------------------------------------------
def draw_f1_by_category(path: Path, results: Sequence[Result]) -> None:
    """Draw F1 of both stages: bars for the average of every category and of all events, dots for the events."""
    groups = [
        (f"{CATEGORIES[number][0]}\n({len(members)})", category_color(number), members)
        for number, members in by_category(results).items()
    ]
    groups.append((f"all\n({len(results)})", "#606060", list(results)))
    with new_figure(path, max(90, 24 * len(groups) + 20), 75) as figure:
        axes = figure.subplots()
        for x, (_, color, members) in enumerate(groups):
            shown = zip((x - 0.19, x + 0.19), averages(members), ("stage1", "stage2"), strict=True)
            for at, average, stage in shown:
                hatch = "/////" if stage == "stage1" else None
                axes.bar(
                    at, average.f1, 0.36, color="white" if hatch else color, edgecolor="#404040", lw=0.6, hatch=hatch
                )
                values = [getattr(member, stage).f1 for member in members]
                top = max(average.f1, *values, 0) + 0.025
                axes.text(at, top, f"{average.f1:.2f}", ha="center", va="bottom", size=6.5)
                _draw_dots(axes, at, values)
        axes.axvline(len(groups) - 1.5, color="#b0b0b0", lw=0.6)
        axes.bar(0, 0, color="white", edgecolor="#404040", hatch="/////", lw=0.6, label="stage 1")
        axes.bar(0, 0, color="#b0b0b0", edgecolor="#404040", lw=0.6, label="stage 2 (category's colour)")
        axes.plot([], [], "o", ms=2.5, mfc="white", mec="black", mew=0.6, ls="none", label="one event")
        axes.set(ylim=(0, 1.1), yticks=np.linspace(0, 1, 6), ylabel="F1 of mean recall and mean precision")
        axes.spines["left"].set_bounds(0, 1)
        axes.set_xticks(range(len(groups)), [name for name, _, _ in groups])
        axes.tick_params(axis="x", length=0)
        axes.set_title("F1 by category", pad=20)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.6)


def _draw_dots(axes: "Axes", x: float, values: Sequence[float]) -> None:
    """Draw one dot per event, spread a little so that equal values stay visible."""
    if len(values) > 1:
        spread = np.linspace(-0.12, 0.12, len(values))
        axes.plot(x + spread, values, "o", ms=2.5, mfc="white", mec="black", mew=0.6, zorder=3, clip_on=False)


# --- Histograms ------------------------------------------------------------------------------------------------------
def draw_histograms(
    path: Path, results: Sequence[Result], curves: Sequence[EventCurves], settings: EvalSettings
) -> None:
    """Draw shares of the anomaly map's scores inside and outside the labels: of all events, then of every category."""
    groups: list[tuple[str, str, list[EventCurves]]] = [(f"all events ({len(results)})", "#606060", list(curves))]
    for number in by_category(results):
        members = [curve for result, curve in zip(results, curves, strict=True) if result.event.category == number]
        groups.append((f"{CATEGORIES[number][0]} ({len(members)})", category_color(number), members))
    columns = min(3 if len(groups) <= 6 else 4, len(groups))
    rows = -(-len(groups) // columns)
    with new_figure(path, min(180, 60 * columns + 10), 45 * rows + 14) as figure:
        all_axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (title, color, members) in zip(all_axes, groups, strict=False):
            _draw_histogram(axes, members)
            _mark_threshold(axes, settings.stage2_threshold, 0.95)
            axes.set_title(title)
            axes.plot(
                -0.03, 1.09, "s", color=color, mec="#404040", mew=0.4, ms=5, transform=axes.transAxes, clip_on=False
            )
        for axes in all_axes[len(groups) :]:
            axes.set_axis_off()
        for axes in all_axes[max(0, len(groups) - columns) : len(groups)]:  # no plot below
            axes.tick_params(labelbottom=True)
        all_axes[0].set(xlim=(0, 1), yscale="log", ylim=(LOWEST_SHARE, 1))
        scaled = ", scaled" if settings.normalize_anomaly_map else ""
        figure.supxlabel(f"score of the anomaly map{scaled} (above 1 in the last bin)", size=7)
        figure.supylabel("share of the pixels, mean over events", size=7)
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)


def _draw_histogram(axes: "Axes", members: Sequence[EventCurves]) -> None:
    shares = {
        name: mean_shares([getattr(member.histogram, name) for member in members]) for name in ("outside", "inside")
    }
    lowest = LOWEST_SHARE / 10  # below the axis: 0 has no logarithm
    if shares["outside"] is not None:
        axes.stairs(shares["outside"], BIN_EDGES, color=OUTSIDE, fill=True, baseline=lowest, label="outside labels")
    if shares["inside"] is not None:
        axes.stairs(shares["inside"], BIN_EDGES, color=INSIDE, lw=1.1, baseline=lowest, label="inside labels")
