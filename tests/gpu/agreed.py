"""What one plain step may cost, as agreed: a step that costs more fails. Lower a number when the code has.

The goal of every case is no wait and no blocking copy; of views 300 operators, and 500 for images of mixed sizes.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ssl_core.methods import METHODS


class Cost(NamedTuple):
    """The numbers that are agreed."""

    view_operators: int
    waits: int
    blocking_copies: int


GOALS: Mapping[str, Cost] = {"step:simclr": Cost(300, 0, 0), "step:mixed_sizes": Cost(500, 0, 0)}
_SMALL = Cost(view_operators=248, waits=0, blocking_copies=0)  # images of one small size, by the default views
AGREED: Mapping[str, Cost] = {
    **{f"step:{name}": _SMALL for name in (*METHODS, "lars", "muon", "adamw")},
    "step:blur": Cost(273, 0, 0),
    "step:supervised": Cost(52, 0, 0),
    "step:mixed_sizes": Cost(407, 0, 0),
}
