"""How good a frozen representation is: features, kNN, linear probe, label-free quality, the verdict."""
