"""Self-supervised methods: one LightningModule per file, each in its paper's order."""
