"""Backups: a snapshot of the database with the files that it names, and their restoration into another place."""
