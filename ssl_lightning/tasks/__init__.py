"""What labels mean: head, loss, metric."""
