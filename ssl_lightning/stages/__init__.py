"""The stages, one function `run` each, read from top to bottom: what happens, in which order, and what is reported."""
