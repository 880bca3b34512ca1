"""From words on the command line to a run: help, composing, checks, trainers, processes, sweeps."""
