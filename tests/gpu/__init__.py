"""The GPU path of the core, tested on machines without a GPU; see `tests.gpu.pretended`."""
