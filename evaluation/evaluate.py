"""Scores both stages for every labelled event."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.progress import Summary, run_events
from evaluation.curves import EventCurves, event_curves
from evaluation.event_maps import EvalSettings, open_event_maps
from evaluation.objects import ObjectCounts, count_false_alarms, score_objects
from evaluation.tables import Result
from evaluation.thresholds import ControlCurve, control_curve
from utils import LOG, Event, EventError, Listing


@dataclass(frozen=True)
class Evaluation:
    """The results of all events."""

    results: list[Result]  # one per labelled event
    curves: list[EventCurves]  # one per result, or empty
    summary: Summary
    controls: list[ControlCurve] = field(default_factory=list)  # one per usable normal control, or empty
    false_alarms: dict[str, ObjectCounts] = field(default_factory=dict)  # of usable normal controls by name, or empty

    def why_empty(self) -> str:
        """Return one line that says how many events failed or were skipped, where none has results."""
        failed, skipped = len(self.summary.failed), len(self.summary.skipped)
        return (
            f"no event was evaluated, so nothing is written: {failed} failed, {skipped} skipped, for the reasons above"
        )


def evaluate_events(
    listing: Listing,
    result_root: Path,
    settings: EvalSettings,
    with_curves: bool,
    with_controls: bool = False,
    object_share: float | None = None,
    map_name: str | None = None,
) -> Evaluation:
    """Evaluate the maps that stage 2 wrote to `result_root`.

    `with_curves` also computes the data of the plots. `with_controls` also counts the pixels that are flagged in normal
    controls; a control without usable maps is left out with a warning, so that the events' outcomes stay the same.
    `object_share`: also score objects, see `score_objects`, and count those of normal controls. `map_name`: see
    `open_event_maps`.
    """
    results: list[Result] = []
    curves: list[EventCurves] = []
    controls: list[ControlCurve] = []
    false_alarms: dict[str, ObjectCounts] = {}

    def process(event: Event, event_done: object) -> str | None:
        if event.category == 0:
            if with_controls or object_share is not None:
                try:
                    maps = open_event_maps(event, result_root, settings, map_name)
                    if with_controls:
                        controls.append(control_curve(maps))
                    if object_share is not None:
                        false_alarms[event.name] = count_false_alarms(maps)
                except EventError as error:
                    LOG.warning("%s: this normal control is left out: %s", event.name, error)
            return "a normal control, not evaluated"
        if event.label is None:
            return "no label, not evaluated"
        maps = open_event_maps(event, result_root, settings, map_name)
        objects = None if object_share is None else score_objects(maps, object_share)
        result = Result(event, *maps.scores(), objects)
        if with_curves:
            curves.append(event_curves(maps))
        results.append(result)
        return None

    summary = run_events("evaluation", listing, lambda event: 1, process, unit="event")
    return Evaluation(results, curves, summary, controls, false_alarms)
