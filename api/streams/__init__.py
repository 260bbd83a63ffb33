"""Streams: what a job writes, as Server-Sent Events while it is written, or as lines of a file."""
