"""The training loop, one step of it, resolving `auto`, early stopping, duration."""
