"""What an item is, one folder for each kind: how it is loaded, batched, viewed, evaluated and drawn."""
