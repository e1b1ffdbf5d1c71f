"""Says what a run found, where it lies, and what to run next."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import config
from utils import LOG, Event

if TYPE_CHECKING:
    from pipeline.stage import StagePlan

Flag = tuple[str, Path, Path]  # name, value, default


def next_command(script: str, flags: Sequence[Flag]) -> str:
    """Return the command that continues a run; flags with their default values are left out."""
    given = [part for name, value, default in flags if value != default for part in (name, str(value))]
    return shlex.join(["python", script, *given])


def report_command(data_root: Path, stage1_root: Path, result_root: Path) -> str:
    """Return the command that writes the report of a run's outputs."""
    flags = (
        ("--data-root", data_root, config.DEFAULT_DATA_ROOT),
        ("--stage1-root", stage1_root, config.STAGE1_OUTPUT_DIR),
        ("--result-root", result_root, config.STAGE2_OUTPUT_DIR),
    )
    return next_command("run_report.py", flags)


def log_outcome(events: Iterable[Event], plan: "StagePlan", commands: Sequence[str]) -> None:
    """Log number, area and highest score of the regions of each event that has them, then the next commands."""
    from evaluation.polygons import summarize_regions  # loads GDAL
    from rasters.place import area_text

    for event in events:
        folder = plan(event)[-1].folder
        found = summarize_regions(folder / config.REGIONS_NAME)
        if found is not None:
            area = f"{found.pixels:,} px" if found.area_m2 is None else area_text(found.area_m2)
            highest = f", {area}, highest score {found.highest:.2f}" if found.regions else ""
            number = f"{found.regions} region{'' if found.regions == 1 else 's'}"
            LOG.info("%s: %s%s: %s", event.name, number, highest, folder)
    for command in commands:
        LOG.info("next: %s", command)
