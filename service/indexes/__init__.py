"""Indexes: vectors of the images of a dataset, which the encoder searches."""
