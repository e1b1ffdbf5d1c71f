"""Runs the stages of an event in this process: open, compute windows, keep them, write the maps."""
