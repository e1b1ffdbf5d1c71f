"""Synthetic disaster events and a small SAM trained on such scenes, for demos and tests, not for real images."""
