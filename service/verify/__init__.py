"""Verification: every stored file that the database names, compared with its recorded SHA-256."""
