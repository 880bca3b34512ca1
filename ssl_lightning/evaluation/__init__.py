"""Judging a frozen representation: kNN, linear probes, label-free quality."""
