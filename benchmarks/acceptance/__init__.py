"""Acceptance of the core on a GPU, or in small on a CPU: `python -m benchmarks.acceptance first|long`."""
