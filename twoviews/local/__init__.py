"""The local service: all its processes on this machine."""
