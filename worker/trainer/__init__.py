"""Attempts at jobs: the trainer process, its events and its lease."""
