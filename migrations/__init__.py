"""Migrations: the history of the schema, one for SQLite and PostgreSQL alike."""
