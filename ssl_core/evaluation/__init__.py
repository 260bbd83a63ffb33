"""Features evaluated: kNN, linear probe, online probe, collapse metrics, 2-D projection."""
