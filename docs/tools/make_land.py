"""Converts Natural Earth's land outline to `land.json`: `python -m docs.tools.make_land land-110m.json`.

The input is from the npm package world-atlas 2.0.2 (`npm pack world-atlas`), TopoJSON made from Natural Earth 4.1.0.
"""

import argparse
import json
from itertools import accumulate
from pathlib import Path
from typing import Any

Ring = list[tuple[float, float]]


def decode_arc(arc: list[list[int]], transform: dict[str, list[float]]) -> Ring:
    """Decode an arc of TopoJSON, integer steps, to longitudes and latitudes."""
    (x_scale, y_scale), (x0, y0) = transform["scale"], transform["translate"]
    xs, ys = (accumulate(steps) for steps in zip(*arc, strict=True))
    return [(x0 + x * x_scale, y0 + y * y_scale) for x, y in zip(xs, ys, strict=True)]


def read_rings(topology: dict[str, Any]) -> list[Ring]:
    """Return all rings of the land, without the repeated closing point."""
    arcs = [decode_arc(arc, topology["transform"]) for arc in topology["arcs"]]
    rings = []
    for geometry in topology["objects"]["land"]["geometries"]:
        for polygon in geometry["arcs"]:
            for indices in polygon:
                parts = [arcs[index] if index >= 0 else arcs[~index][::-1] for index in indices]
                rings.append([point for part in parts for point in part[:-1]])
    return rings


def unwrap(ring: Ring) -> list[Ring]:
    """Remove jumps from 180 to -180 degrees; return one copy of the ring for each side of the map that it reaches.

    A ring around a pole is closed along the map's edge.
    """
    longitudes = [ring[0][0]]
    for x, _ in ring[1:]:
        longitudes.append(x - 360 * round((x - longitudes[-1]) / 360))
    whole = list(zip(longitudes, (y for _, y in ring), strict=True))
    if abs(longitudes[-1] - longitudes[0]) > 180:
        pole = -90.0 if sum(y for _, y in ring) < 0 else 90.0
        last = longitudes[0] + 360 * round((longitudes[-1] - longitudes[0]) / 360)
        whole += [(last, ring[0][1]), (last, pole), (longitudes[0], pole)]
    shifts = [shift for shift in (-360, 0, 360) if min(longitudes) + shift < 180 and max(longitudes) + shift > -180]
    return [[(x + shift, y) for x, y in whole] for shift in shifts]


def main() -> None:
    """Write `land.json` beside this script: rings of [x, y, x, y, ...] in tenths of a degree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topology", type=Path, help="land-110m.json of world-atlas")
    topology = json.loads(parser.parse_args().topology.read_text(encoding="utf-8"))
    rings = []
    for ring in (part for whole in read_rings(topology) for part in unwrap(whole)):
        points = [(round(10 * x), round(10 * y)) for x, y in ring]
        kept = [point for i, point in enumerate(points) if point != points[i - 1]]
        if len(kept) >= 3:
            rings.append([number for point in kept for number in point])
    path = Path(__file__).with_name("land.json")
    path.write_text(json.dumps(rings, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
