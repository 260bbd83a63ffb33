"""Weights trained elsewhere -> a model of ours."""
