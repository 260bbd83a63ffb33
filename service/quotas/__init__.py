"""Quotas: what an owner may use at a time, and what it uses. A quota of 0 is no limit."""
