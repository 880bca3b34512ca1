"""What watches and steers a run from outside the method: teacher, probes, collapse, loggers, checkpoints."""
