"""Images: sources, decoding, views, the evaluation view, pixels as the naive baseline."""
