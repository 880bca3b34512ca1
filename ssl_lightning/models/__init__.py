"""Backbones (images to features) and heads (features to embeddings)."""
