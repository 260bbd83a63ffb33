"""Embedding of a dataset: its shards, and the jobs by which several workers share them."""
