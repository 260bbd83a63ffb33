"""Import of weights trained elsewhere as saved models."""
