"""Alembic migrations of the database schema, for SQLite and PostgreSQL."""
