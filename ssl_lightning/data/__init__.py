"""From items of any kind to batches: data module, loader, sampler, labels, lists of files."""
