"""Tests of the acceptance run, in small on the CPU."""
