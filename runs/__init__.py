"""Starts a run: in this process, on a Ray cluster, or as a dry run."""
