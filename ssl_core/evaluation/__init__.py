"""Evaluation of encoders: kNN, linear and online probes, representation metrics, 2-D projection."""
