"""A run's folder: identity, checkpoints, log, curves, first batch, interruption, and the exported backbone."""
