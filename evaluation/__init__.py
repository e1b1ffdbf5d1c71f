"""Evaluates maps against labels: tables, curves, regions and polygons."""
