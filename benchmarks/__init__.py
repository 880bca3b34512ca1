"""Benchmarks: each prints ratios from interleaved runs; nothing here is asserted."""
