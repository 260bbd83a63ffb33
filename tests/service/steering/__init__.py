"""Tests of what clients do to submitted jobs, and of the forecast that queued ones show."""
