"""Stages of the acceptance: one file measures one thing."""
