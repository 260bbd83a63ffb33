"""What one plain step may cost, as agreed: a step that costs more fails. Lower a number when the code has.

The goal of every case is no wait and no blocking copy; of views 300 operators, and 500 for images of mixed sizes; of
optimizers 25, but for Muon.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ssl_core.methods import METHODS


class Cost(NamedTuple):
    """The numbers that are agreed."""

    view_operators: int
    optimizer_operators: int
    waits: int
    blocking_copies: int


GOALS: Mapping[str, Cost] = {"step:simclr": Cost(300, 25, 0, 0), "step:mixed_sizes": Cost(500, 25, 0, 0)}
# Images of one small size, by the default views; SGD.
_SMALL = Cost(view_operators=248, optimizer_operators=9, waits=0, blocking_copies=0)
_LARS = _SMALL._replace(optimizer_operators=22)
AGREED: Mapping[str, Cost] = {
    **{f"step:{name}": _SMALL for name in METHODS},
    "step:simsiam": _SMALL._replace(optimizer_operators=20),  # two rates
    "step:barlow_twins": _LARS,
    "step:vicreg": _LARS,
    "step:lars": _LARS,
    "step:muon": _SMALL._replace(optimizer_operators=101),
    "step:adamw": _SMALL._replace(optimizer_operators=15),
    "step:blur": _SMALL._replace(view_operators=273),
    "step:supervised": _SMALL._replace(view_operators=52),
    "step:mixed_sizes": _LARS._replace(view_operators=407),
}
