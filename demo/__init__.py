"""Synthetic disaster events and the small SAM that reads them: for demos and tests, not for real images."""
