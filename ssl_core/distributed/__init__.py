"""Several processes as one: start, gather, synchronised batch norm."""
