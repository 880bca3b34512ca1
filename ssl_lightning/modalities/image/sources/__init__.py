"""One file per source of images, each a `DataModule` that overrides `load`."""
