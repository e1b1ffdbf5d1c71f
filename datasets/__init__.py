"""Converts public data sets, as they lie on the disk after unpacking, into event folders (docs/datasets.md)."""
