"""One event through its stages in this process: open, compute windows, keep them, write the maps."""
