"""Alembic revisions, each with the one before as `down_revision`."""
