"""Benchmarks; README.md has the results and the commands that reproduce them."""
