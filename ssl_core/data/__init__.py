"""Datasets: packing, decoding, sampling, label splits and uint8 batches."""
