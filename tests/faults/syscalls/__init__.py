"""Faults at system calls: each call by which a writer changes a file is killed or fails, and what is left is loaded."""
