"""MoCo v2 (Chen et al. 2020, arXiv:2003.04297): contrast a query with its key and a queue of negatives.

The keys come from the momentum encoder. The authors shuffle the batch between devices, so that batch norm leaks
nothing; with synchronised batch norm there is nothing to shuffle.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.config.fields import known
from ssl_core.config.methods import MoCoV2 as Config
from ssl_core.distributed.collectives import gather
from ssl_core.methods.losses import info_nce
from ssl_core.methods.method import Output
from ssl_core.methods.target import TargetMethod
from ssl_core.models.backbones import Backbone
from ssl_core.models.heads import MLP


class MoCoV2(TargetMethod):
    """The first view is the query, the second the key; each passes its network by itself."""

    queue: Tensor  # K×D, unit rows
    place: Tensor  # int64 scalar: row of the next key

    def __init__(self, config: Config, backbone: Backbone) -> None:
        widths = known(config.projector)
        projector = MLP((backbone.dim, *widths), hidden_norm=False)
        super().__init__(backbone, projector, momentum=config.momentum, rising=False)
        self.temperature = config.temperature
        self.register_buffer("queue", F.normalize(torch.randn(config.queue, widths[-1]), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Sequence[Tensor]) -> Output:
        query, key = views
        q = self.embed(query)  # N×D
        with torch.no_grad():
            k = F.normalize(self.target(key).to(self.queue.dtype), dim=1)
        loss = info_nce(q, k, self.queue.clone(), temperature=self.temperature)
        self._enqueue(gather(k))
        return Output(loss, torch.cat([q.detach(), k]))

    def _enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest keys with these, K×D."""
        keys = keys[-len(self.queue) :]
        slots = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[slots] = keys
        self.place.copy_((self.place + len(keys)) % len(self.queue))
