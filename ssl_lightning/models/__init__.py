"""Networks: backbones (items to features), heads (features to embeddings), decoders and predictors."""
