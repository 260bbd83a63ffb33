"""Tests of aliases by HTTP."""
