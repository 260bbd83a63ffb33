"""Search: neighbours, duplicates, outliers, selections and labels in an index of embeddings, as functions of arrays."""
