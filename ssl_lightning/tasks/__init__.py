"""What labels mean: head, loss and metrics of each task, and the module that fine-tunes on them."""
