"""Measures the project's speed against a literal implementation of the published method."""

from cli.process import prepare_process

prepare_process()  # as the scripts do; before any benchmark loads torch
