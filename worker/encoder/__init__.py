"""The encoder server: images to embeddings."""
