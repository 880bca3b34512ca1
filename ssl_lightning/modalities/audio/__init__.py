"""Audio: recordings as waves (B, 1, L) or log-mel spectrograms (B, 1, F, T)."""
