"""Tests of comparisons by HTTP."""
