"""Tests of the deletion of jobs and models by HTTP."""
