"""Runs the stages on the workers of a Ray cluster."""
