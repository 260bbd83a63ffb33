"""Comparison: jobs side by side, and the models of evaluations of the same protocol in the order of their accuracy."""
