"""Measures the project's speed against a literal implementation of the published method."""
