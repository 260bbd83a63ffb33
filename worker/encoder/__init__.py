"""The encoder server: embeds images with saved models."""
