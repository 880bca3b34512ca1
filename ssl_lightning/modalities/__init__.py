"""What an item is, one folder for each kind: loaded, batched, viewed, evaluated, drawn."""
