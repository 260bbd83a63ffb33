"""Sweeps: jobs that differ in some fields of their config, started a few at a time, the best found by a metric."""
