"""What watches and steers a run from outside the method: probes, collapse, pictures, loggers, checkpoints."""
