"""Losses: one published equation per file, tensors in, a scalar out."""
