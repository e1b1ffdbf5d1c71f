"""Draws the README's first picture from a demo event: `python -m docs.tools.readme_picture EVENTS RESULTS OUT.png`.

RESULTS is the folder with `stage1` and `stage2` that `make demo` writes. Needs matplotlib (requirements-report.txt).
"""

from pathlib import Path

from cli.script import run_script
from docs.tools.arguments import parse_picture_arguments
from report.event_panels import EventPanels, read_panels
from report.figures import new_figure, require_matplotlib
from report.style import SCORE_COLORS
from utils import date_text, list_events

EVENT = "2_demo_collapse"
WIDTH, HEIGHT = 150.0, 47.5  # millimetres: titles of 8 points can be read at the width of a web page
HIGHEST_SCORE = 0.4  # of the colour scale
LABEL = "#ffffff"


def draw(path: Path, panels: EventPanels) -> None:
    """Draw reference image, monitor image, change map and anomaly map in a row, the label outlined in all but one."""
    assert panels.label is not None
    reference, monitor = panels.event.reference, panels.event.monitor
    columns = (
        (panels.historical[-1].rgb, f"reference image\n{date_text(reference)}"),
        (panels.monitor.rgb, f"monitor image\n{date_text(monitor)}"),
        (panels.changes, "stage 1\nwhat changed"),
        (panels.anomalies, "stage 2\nwhat is new"),
    )
    with new_figure(path, WIDTH, HEIGHT) as figure:
        for number, (axes, (picture, title)) in enumerate(zip(figure.subplots(1, len(columns)), columns, strict=True)):
            axes.imshow(picture, SCORE_COLORS, vmin=0, vmax=HIGHEST_SCORE)
            if number > 0:
                axes.contour(panels.label > 1, [0.5], colors=LABEL, linewidths=1)
            axes.set_title(title, size=8, weight="normal")
            axes.set_axis_off()


def main() -> int:
    """Draw the picture; returns the exit code."""
    args = parse_picture_arguments(__doc__.splitlines()[0])
    require_matplotlib()
    (event,) = list_events(args.data_root, EVENT).events
    draw(args.output, read_panels(event, args.results / "stage1", args.results / "stage2"))
    return 0


if __name__ == "__main__":
    run_script(main)
