"""Steering of jobs over HTTP."""
