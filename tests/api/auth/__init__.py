"""Tests of keys: scopes, expiry, the record of their uses, and the audit trail."""
