"""A run's folder: its config, checkpoints, cards and weights."""
