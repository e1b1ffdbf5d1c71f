"""Measures buildings on a map of the size of the largest published event: time and memory.

    python -m benchmarks.bench_footprints --footprints 100000

The map is synthetic: squares of a score on 0. The footprints are rectangles of 6 to 20 m, turned at random, in WGS 84.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from osgeo import gdal, ogr

from benchmarks.measure import append_rows, describe_environment, measure
from cli.flags import positive_int
from eval_metrics import binarize_anomaly_map
from evaluation.event_maps import EvalSettings
from evaluation.footprint_file import open_footprints
from evaluation.footprint_layer import write_footprints
from evaluation.footprints import EventRasters, measure_footprints
from rasters.cog import write_raster
from rasters.geotiff import Georeference
from rasters.maps import ScoreMap
from rasters.place import epsg_crs, transform_points
from rasters.raster import MemoryRaster

RESULTS = Path(__file__).resolve().parent / "results" / "footprints.csv"
HEIGHT, WIDTH = 13197, 9850  # pixels
PIXEL = 0.5  # metres
CRS, EAST, NORTH = 32633, 400_000.0, 5_000_000.0  # upper left corner
BUFFERS = (0.0, 10.0, 20.0)
SQUARE, SPACING = 200, 700  # of the flagged squares, pixels


def write_scores(path: Path) -> ScoreMap:
    """Write the map."""
    rows, columns = np.arange(HEIGHT) % SPACING < SQUARE, np.arange(WIDTH) % SPACING < SQUARE
    scores = np.outer(rows, columns).astype(np.float32) * np.float32(0.4)
    georeference = Georeference(epsg_crs(CRS), (EAST, PIXEL, 0.0, NORTH, 0.0, -PIXEL))
    write_raster(path, MemoryRaster(scores), georeference, {}, ["score"])
    return ScoreMap(path)


def write_buildings(path: Path, count: int) -> None:
    """Write rectangles within the map."""
    random = np.random.default_rng(0)
    centres = random.random((count, 2)) * (WIDTH * PIXEL, HEIGHT * PIXEL)
    sides, angles = random.uniform(6, 20, (count, 2)), random.uniform(0, np.pi, count)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
    turn = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], axis=1).reshape(-1, 2, 2)
    outlines = centres[:, None] * (1, -1) + (EAST, NORTH) + (corners * sides[:, None]) @ turn
    degrees = transform_points(epsg_crs(CRS), epsg_crs(4326), outlines.reshape(-1, 2).tolist())
    assert degrees is not None
    dataset = gdal.GetDriverByName("GPKG").Create(str(path), 0, 0, 0, gdal.GDT_Unknown)
    layer = dataset.CreateLayer("buildings", epsg_crs(4326), ogr.wkbPolygon)
    dataset.StartTransaction()
    for outline in np.array(degrees).reshape(count, 5, 2).tolist():
        feature = ogr.Feature(layer.GetLayerDefn())
        points = ", ".join(f"{x!r} {y!r}" for x, y in outline)
        feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON(({points}))"))
        layer.CreateFeature(feature)
    dataset.CommitTransaction()


def main() -> None:
    """Measure, print a row, and append it to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footprints", type=positive_int, default=100_000, help="number (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to append to (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scores = write_scores(folder / "map.tif")
        write_buildings(folder / "buildings.gpkg", args.footprints)
        settings = EvalSettings()

        def run() -> int:
            binary = binarize_anomaly_map(scores, settings.stage2_threshold, **settings.cleaning)
            file = open_footprints(folder / "buildings.gpkg", scores, max(BUFFERS))
            rasters = EventRasters(scores, binary, None)
            numbers, values = measure_footprints(file, rasters, BUFFERS, lambda _: None)
            write_footprints(folder / "out.gpkg", file.layer, numbers, BUFFERS, values)
            return len(numbers)

        count, took = measure("cpu", run)
    row = {"footprints": str(count), "buffers": "0, 10, 20 m", "seconds": f"{took.seconds:.1f}"}
    row |= {"megapixels": f"{HEIGHT * WIDTH / 1e6:.0f}", "host MiB": f"{took.host_bytes / 2**20:.0f}"}
    print("  ".join(f"{column}: {value}" for column, value in row.items()))
    append_rows(args.results, [describe_environment("cpu") | row])


if __name__ == "__main__":
    main()
