"""Embedding of a dataset: shards of features, computed by one process or by several, and their index."""
