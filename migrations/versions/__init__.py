"""Revisions: each file is one step of the schema, from which the next one starts."""
