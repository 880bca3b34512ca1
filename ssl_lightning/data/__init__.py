"""Images in, batches of views out: sources, sampler, views and the DataModule that joins them."""
