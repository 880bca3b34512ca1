"""What every room builds on: the batch, and what parts of a run may ask of each other."""
