"""Fuzzing of the API: every request gives the documented response."""
