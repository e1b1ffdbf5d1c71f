"""The HTML report and the figures."""
