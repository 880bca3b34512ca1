"""A run's folder: config, checkpoints, cards and weights, and how a run is begun, resumed and made longer."""
