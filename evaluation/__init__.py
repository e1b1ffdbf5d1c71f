"""From maps and labels to tables, curves, regions and polygons."""
