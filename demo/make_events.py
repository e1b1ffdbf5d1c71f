"""Writes the six demo events as GeoTIFFs: `python -m demo.make_events FOLDER`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from osgeo import osr
from tqdm import tqdm

import config
from cli.script import run_script
from demo.scenes import make_event
from rasters.cog import write_raster
from rasters.geotiff import Georeference

EPSG = 32633  # UTM 33 N
PIXEL_METRES = 0.5
ORIGIN = (500_000.0, 4_649_776.0)
HISTORICAL_DATES = ("20180614", "20181002", "20190311", "20190620")
MONITOR_DATE = "20210720"


class DemoEvent(NamedTuple):
    """One event of the demo."""

    name: str  # begins with the category
    seed: int


DEMO_EVENTS = (
    DemoEvent("0_demo_normal", 10),
    DemoEvent("1_demo_explosion", 21),
    DemoEvent("2_demo_collapse", 12),
    DemoEvent("3_demo_landslide", 13),
    DemoEvent("4_demo_fire", 14),
    DemoEvent("5_demo_dam_break", 15),
)


def write_event(
    data_root: Path, event: DemoEvent, size: int = 1024, historical_dates: Sequence[str] = HISTORICAL_DATES
) -> Path:
    """Draw one event and write it in the published layout; returns its folder."""
    images = make_event(event.seed, int(event.name[0]), size, len(historical_dates))
    crs = osr.SpatialReference()
    crs.ImportFromEPSG(EPSG)
    georeference = Georeference(crs, (ORIGIN[0], PIXEL_METRES, 0.0, ORIGIN[1], 0.0, -PIXEL_METRES))
    rasters: dict[str, np.ndarray] = {
        f"normal_{date}.tif": image for date, image in zip(historical_dates, images.historical, strict=True)
    }
    if images.label is None:
        rasters[f"normal_{MONITOR_DATE}.tif"] = images.monitor
    else:
        rasters[f"anomaly_{MONITOR_DATE}.tif"] = images.monitor
        rasters[f"anomaly_{MONITOR_DATE}_label.tif"] = images.label
    for name, raster in rasters.items():
        write_raster(data_root / event.name / name, raster, georeference)
    return data_root / event.name


def main() -> int:
    """Write all demo events; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "data_root",
        type=Path,
        nargs="?",
        default=config.DEFAULT_OUTPUT_ROOT / "demo" / "events",
        help="folder for the event folders (default: %(default)s)",
    )
    args = parser.parse_args()
    for event in tqdm(DEMO_EVENTS, "demo events", unit="event"):
        write_event(args.data_root, event)
    return 0


if __name__ == "__main__":
    run_script(main)
