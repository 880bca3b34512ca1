"""What every room builds on: batch, protocols, processes, signals, errors, files that are whole or absent."""
