"""Draws the polygons of a demo event over its monitor image: `python -m docs.tools.regions_picture EVENTS RESULTS PNG`.

RESULTS is the folder with `stage1` and `stage2` that `make demo` writes.
"""

import cv2
import numpy as np
from osgeo import ogr

import config
from cli.script import run_script
from docs.tools.arguments import parse_picture_arguments
from img_io import open_event, read_window
from utils import Window, list_events

EVENT = "1_demo_explosion"
SIDE = 560  # of the picture and of the part of the image that it shows, pixels
COLOR = (48, 48, 255)  # blue, green, red


def main() -> int:
    """Draw the picture; returns the exit code."""
    args = parse_picture_arguments(__doc__.splitlines()[0])
    (event,) = list_events(args.data_root, EVENT).events
    images = open_event(event)
    assert images.georeference.transform is not None
    left, width, _, top, _, height = images.georeference.transform
    picture = cv2.cvtColor(read_window(images.monitor, Window(0, 0, SIDE, SIDE)).rgb, cv2.COLOR_RGB2BGR)
    regions = ogr.Open(str(args.results / "stage2" / EVENT / config.REGIONS_NAME))
    for region in regions.GetLayer(0):
        for part in ogr.ForceToMultiPolygon(region.GetGeometryRef().Clone()):
            for ring in part:
                corners = (np.array(ring.GetPoints())[:, :2] - (left, top)) / (width, height)
                cv2.polylines(picture, [corners.round().astype(np.int32)], isClosed=True, color=COLOR, thickness=2)
        print({name: region.GetField(name) for name in ("mean_score", "area_m2")})
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.output), picture)
    return 0


if __name__ == "__main__":
    run_script(main)
