"""Other change detection methods, whose maps are evaluated and shown as those of AnomalyCD (docs/baselines.md)."""
