"""Augmentation: random views of uint8 batches, seeded per image."""
