"""Files that can be loaded again: checkpoints, saved models and their cards."""
