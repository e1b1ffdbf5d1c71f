"""Measures the project's speed against the published method, as it is written down."""
