"""The embedded service: every process of it on this machine."""
