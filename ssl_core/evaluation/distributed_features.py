"""Distributed features: every process encodes its share of the images, and the first one has the features of all.

A share is of whole batches. So every batch is one that a single process would encode, and its features have the same
bytes.
"""

import torch
from torch import Tensor

from ssl_core.data.sampling import Rows
from ssl_core.distributed import collectives
from ssl_core.evaluation.features import BATCH, extract_features
from ssl_core.models.encoder import Encoder


def select_share(rows: Rows) -> Rows:
    """Return those of the rows that this process encodes: none, when there are fewer batches than processes."""
    return rows[_share(len(rows), collectives.rank())]


def extract_together(encoder: Encoder, share: Tensor, count: int, layer: str = "backbone") -> Tensor | None:
    """Return the features of `count` images, float32 N×D on the encoder's device; None but in the first process.

    share: the images of this process's `select_share`, prepared, uint8 n×S×S×C. All processes call it together.
    """
    if len(share):
        features = extract_features(encoder, share, layer)
    else:
        features = torch.zeros(0, encoder.layers[layer], device=encoder.device)
    shares = (_share(count, rank) for rank in range(collectives.world_size()))
    return collectives.gather_to_first(features, [share.stop - share.start for share in shares])


def _share(count: int, rank: int) -> slice:
    """The place of a process's images among all."""
    batches, processes = -(-count // BATCH), collectives.world_size()
    first, end = (BATCH * (batches * number // processes) for number in (rank, rank + 1))
    return slice(min(first, count), min(end, count))
