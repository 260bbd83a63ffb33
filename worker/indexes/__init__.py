"""Building of indexes: from the embeddings that a job has left to the files that the encoder searches."""
