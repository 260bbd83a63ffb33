"""The steps: how many operators, waits and copies one plain step has, by part; plain: nothing is reported or saved.

It is always the third step of its run: the operators of the views depend on the images and on what is drawn for them.
"""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules import module
from torch.optim import optimizer

from ssl_core.methods import METHODS
from ssl_core.methods.method import Method
from tests.gpu.agreed import AGREED, Cost
from tests.gpu.pretended.record import RECORD, Counts, Kind
from tests.gpu.workspace import Workspace

VIEWS, FORWARD, BACKWARD, OPTIMIZER, AFTER = "views", "forward", "backward", "optimizer", "after"
_WARM_UP = 2  # steps
_EPOCHS = 2_000  # so many steps that none of the first is reported

_CONFIG: Mapping[str, Any] = {
    "device": "cuda",
    "precision": "bf16",
    "method": {"name": "simclr"},
    "batch_size": 16,
    "epochs": _EPOCHS,
    "backbone": {"name": "resnet18", "width": 0.25},  # operators do not depend on the width
    "evaluation": {"every_epochs": 0},
    "compile": False,
    "pictures": False,
}
_MIXED_SIZES: Mapping[str, Any] = {
    "optimizer": {"name": "lars"},
    "backbone": {"name": "resnet50", "width": 0.25},
    "image_size": 96,
    "views": {"blur": 0.5},
}
_SUPERVISED: Mapping[str, Any] = {"kind": "supervised", "method": None}
# What differs from `_CONFIG`. Of images of one small size, but for the last.
STEPS: Mapping[str, Mapping[str, Any]] = {
    **{f"step:{name}": {"method": {"name": name}} for name in METHODS},
    **{f"step:{name}": {"optimizer": {"name": name}} for name in ("lars", "muon", "adamw")},
    "step:blur": {"views": {"blur": 0.5}},
    "step:supervised": _SUPERVISED,
    "step:mixed_sizes": _MIXED_SIZES,
}


@dataclass(frozen=True)
class Step:
    """One plain step: what it cost, and what it may cost."""

    name: str
    counts: Counts
    agreed: Cost
    error: str | None = None  # in which its run ended, and where that was raised

    def operators(self, part: str) -> int:
        """Return the operators of a part; what other threads run is for the views."""
        if part != VIEWS:
            return self.counts.count(Kind.OPERATOR, part)
        return self.counts.count(Kind.OPERATOR) - sum(map(self.operators, (FORWARD, BACKWARD, OPTIMIZER, AFTER)))

    @property
    def cost(self) -> Cost:
        waits, copies = self.counts.count(Kind.WAIT), self.counts.count(Kind.BLOCKING_COPY)
        return Cost(self.operators(VIEWS), self.operators(OPTIMIZER), waits, copies)

    @property
    def wrong(self) -> list[str]:
        """The error, or what is above the agreed numbers, a sentence each."""
        if self.error:
            return [self.error]
        pairs = zip(Cost._fields, self.cost, self.agreed, strict=True)
        return [
            f"{found} {name.replace('_', ' ')}, and {most} are agreed" for name, found, most in pairs if found > most
        ]


def count_all(workspace: Workspace, names: list[str]) -> Iterator[Step]:
    """Yield each of the named steps."""
    for name in names:
        dataset = workspace.mixed if STEPS[name] is _MIXED_SIZES else workspace.small
        window, error = _Window(), None
        try:
            with _parts_recorded():
                workspace.run(_build_config(name), dataset, stop=window)
        except Exception:  # noqa: BLE001 - reported, whatever it is
            error = traceback.format_exc()
        counts = window.counts or RECORD.take()
        if error is None and window.counts is None:
            error = "the run ended before the step that is counted"
        yield Step(name, counts, AGREED[name], error or counts.caught_fault())


def _build_config(name: str) -> dict[str, Any]:
    return {field: value for field, value in {**_CONFIG, **STEPS[name]}.items() if value is not None}


class _Window:
    """The `stop` of a run, which is asked before every step: takes the counts of one step, and ends the run."""

    def __init__(self) -> None:
        self.counts: Counts | None = None
        self._asked = 0

    def __call__(self) -> bool:
        counts, self._asked = RECORD.take(), self._asked + 1
        RECORD.part = VIEWS
        if self._asked == _WARM_UP + 2:
            self.counts = counts
        return self.counts is not None


@contextmanager
def _parts_recorded() -> Iterator[None]:
    """Let the record know which part of a step is under way, in the block."""

    def enter_forward(network: nn.Module, _: Any) -> None:
        RECORD.part = FORWARD if isinstance(network, Method) else RECORD.part

    def leave_forward(network: nn.Module, *_: Any) -> None:
        RECORD.part = BACKWARD if isinstance(network, Method) else RECORD.part

    def enter_optimizer(*_: Any) -> None:
        RECORD.part = OPTIMIZER

    def leave_optimizer(*_: Any) -> None:
        RECORD.part = AFTER

    handles = (
        module.register_module_forward_pre_hook(enter_forward),
        module.register_module_forward_hook(leave_forward),
        optimizer.register_optimizer_step_pre_hook(enter_optimizer),
        optimizer.register_optimizer_step_post_hook(leave_optimizer),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        RECORD.part = ""
