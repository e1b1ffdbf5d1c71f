"""Measures what overlapping windows change: F1 of stage 2, and region borders along the borders of windows.

    python -m benchmarks.bench_overlap --picture docs/images/overlap.png

Synthetic events are divided into windows of half their side, in both stages, with different overlaps; one window of the
whole image has no borders to compare with. Region borders are the edges between a pixel at or above the threshold of
stage 2 and one below it. A seam is a line along which the map passes from one window to the next; the share of region
borders on seams is compared with that of the one window's map on the same lines. Rows are appended to a CSV.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.events import unseen_events
from benchmarks.measure import append_rows, describe_environment, read_whole
from demo.make_events import write_event
from evaluation.event_maps import EvalSettings, open_event_maps
from report.event_panels import EventPanels, read_panels
from report.figures import new_figure, require_matplotlib
from report.style import SCORE_COLORS
from utils import Event, Window, owned_parts, read_event, tile

RESULTS = Path(__file__).parent / "results" / "overlap.csv"
PROJECT = Path(__file__).parent.parent
FIRST_SEED = 3_000_001
PHOTO_SIDE = 256  # pixels, of the picture's photo: keeps the file small


class Layout(NamedTuple):
    """How an image is divided into windows, in pixels."""

    side: int
    overlap: int

    def name(self, size: int) -> str:
        """Return a title for the layout of a square image."""
        if self.side == size:
            return "one window"
        return f"overlap {self.overlap}" if self.overlap else "no overlap"

    def windows(self, size: int) -> list[Window]:
        """Return the windows of a square image."""
        return tile(size, size, self.side, self.overlap)

    def seams(self, size: int) -> list[int]:
        """Return the columns, which are also the rows, at which the map of a square image passes to another window."""
        parts = owned_parts(self.windows(size), deepest=self.overlap > 0).values()
        return sorted({part.x for part in parts} - {0})


class Outcome(NamedTuple):
    """What both stages found in an event with one layout."""

    f1: float  # of stage 2
    borders: "Borders"
    panels: EventPanels


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare windows with and without overlap.")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--events", type=int, default=10, help="number of events (default: %(default)s)")
    parser.add_argument("--size", type=int, default=2048, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the event with the clearest seams")
    return parser.parse_args()


def layouts(size: int) -> list[Layout]:
    """Return the layouts that are compared, the one window last."""
    side = size // 2
    return [Layout(side, 0), Layout(side, side // 8), Layout(side, side // 4), Layout(size, 0)]


def run_event(event: Event, root: Path, layout: Layout, device: str) -> Outcome:
    """Run both stages on an event with one layout. `root`: folder for their outputs."""
    flags = ["--data-root", event.folder.parent, "--stage1-root", root / "stage1", "--stage2-root", root / "stage2"]
    flags += ["--device", device, "--sam-model-type", "vit_demo"]
    flags += ["--patch-size", layout.side, "--overlap", layout.overlap]
    command = [sys.executable, "run.py", *map(str, flags)]
    environment = os.environ | {"ANOMALYCD_STAGE2_PATCH_SIZE": str(layout.side)}
    subprocess.run(command, cwd=PROJECT, env=environment, check=True)
    return read_outcome(event, root)


def read_outcome(event: Event, root: Path) -> Outcome:
    """Read and score the outputs of `run_event`."""
    maps = open_event_maps(event, root / "stage2", EvalSettings())
    flagged = read_whole(maps.anomalies) >= maps.settings.stage2_threshold
    return Outcome(maps.scores()[1].f1, Borders.of(flagged), read_panels(event, root / "stage1", root / "stage2"))


class Borders(NamedTuple):
    """The number of pixel edges on region borders along each line between two columns or rows of an image."""

    beside_columns: np.ndarray  # (W,): on the left side of each column; 0 for the first
    above_rows: np.ndarray  # (H,): above each row; 0 for the first

    @classmethod
    def of(cls, flagged: np.ndarray) -> "Borders":
        """Count the edges of the regions of a binary map, (H, W) bool. The edges of the image do not count."""
        counts = (np.count_nonzero(np.diff(flagged, axis=axis), axis=1 - axis) for axis in (1, 0))
        return cls(*(np.concatenate([[0], count]) for count in counts))

    def share_on(self, seams: Sequence[int]) -> float:
        """Return the share of the edges that lie beside these columns or above these rows; 0 without edges."""
        on_seams = self.beside_columns[seams].sum() + self.above_rows[seams].sum()
        return float(on_seams / max(self.beside_columns.sum() + self.above_rows.sum(), 1))


def result_rows(outcomes: Sequence[Outcome], size: int) -> list[dict[str, str]]:
    """Return a row per layout. The one window is compared with the seams of the first layout."""
    rows = []
    *divided, whole = layouts(size)
    for layout, other, outcome in zip([*divided, whole], [*divided, divided[0]], outcomes, strict=True):
        seams = other.seams(size)
        rows.append(
            {
                "event": outcome.panels.event.name,
                "window": str(layout.side),
                "overlap": str(layout.overlap),
                "windows": str(len(layout.windows(size))),
                "F1": f"{outcome.f1:.4f}",
                "borders on seams": f"{outcome.borders.share_on(seams):.5f}",
                "by chance": f"{outcomes[-1].borders.share_on(seams):.5f}",
            }
        )
    return rows


def print_table(rows: Sequence[dict[str, str]]) -> None:
    """Print the mean of each layout."""
    print("window  overlap  windows  mean F1  borders on seams  by chance")
    key = ("window", "overlap", "windows")
    for layout in dict.fromkeys(tuple(row[name] for name in key) for row in rows):
        of_layout = [row for row in rows if tuple(row[name] for name in key) == layout]
        f1, share, chance = (
            np.mean([float(row[column]) for row in of_layout]) for column in ("F1", "borders on seams", "by chance")
        )
        window, overlap, windows = layout
        print(f"{window:>6}  {overlap:>7}  {windows:>7}   {f1:.4f}  {share:16.2%}  {chance:9.2%}")


def draw(path: Path, outcomes: Sequence[Outcome], size: int) -> None:
    """Draw an event: its monitor image with the label, and the anomaly maps. Raises UsageError without matplotlib."""
    panels = outcomes[0].panels
    assert panels.label is not None
    shown = [(layouts(size)[number], outcomes[number]) for number in (0, 1, 3)]
    highest = max(float(np.nanmax(outcome.panels.anomalies)) for _, outcome in shown)
    extent = (0, size, size, 0)
    with new_figure(path, 180, 48) as figure:
        image, *maps = figure.subplots(1, 4)
        photo = cv2.resize(panels.monitor.rgb, (PHOTO_SIDE, PHOTO_SIDE), interpolation=cv2.INTER_AREA)
        image.imshow(photo, extent=extent, interpolation="nearest")
        image.contour(panels.label > 1, [0.5], colors="white", linewidths=0.8, extent=extent, origin="upper")
        image.set_title("monitor image, label")
        for axes, (layout, outcome) in zip(maps, shown, strict=True):
            scores = outcome.panels.anomalies
            drawn = axes.imshow(scores, SCORE_COLORS, vmin=0, vmax=highest, interpolation="nearest", extent=extent)
            axes.set_title(f"{layout.name(size)}: F1 {outcome.f1:.2f}")
            for seam in layout.seams(size):
                axes.axvline(seam, color="white", lw=0.4, ls=":")
                axes.axhline(seam, color="white", lw=0.4, ls=":")
        for axes in (image, *maps):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        figure.colorbar(drawn, ax=maps, label="anomaly score", shrink=0.85, aspect=25, pad=0.02)


def main() -> None:
    """Run all events with all layouts, append their rows, print the table, draw the picture."""
    args = parse_arguments()
    if args.picture is not None:
        require_matplotlib()
    described = describe_environment(args.device)
    rows: list[dict[str, str]] = []
    clearest = -1.0
    for drawn in unseen_events(FIRST_SEED, args.events):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            event = read_event(write_event(data, drawn, args.size))
            outcomes = [
                run_event(event, Path(folder) / f"{layout.side}_{layout.overlap}", layout, args.device)
                for layout in layouts(args.size)
            ]
        of_event = result_rows(outcomes, args.size)
        append_rows(args.results, [described | row for row in of_event])
        rows += of_event
        on_seams = float(of_event[0]["borders on seams"])
        if args.picture is not None and on_seams > clearest:
            clearest = on_seams
            draw(args.picture, outcomes, args.size)
    print_table(rows)


if __name__ == "__main__":
    main()
