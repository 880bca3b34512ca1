"""Images: sources, views, decoding, evaluation view."""
