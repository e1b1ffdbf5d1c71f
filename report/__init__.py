"""Pages and figures to look at."""
