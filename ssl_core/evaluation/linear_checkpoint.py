"""The notebook of a linear evaluation: what its fits came to, kept so that a killed evaluation need not fit again.

It lies in checkpoints beside the state of the fit under way. What is no notebook of this very evaluation is not read.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_core.config import LinearEval
from ssl_core.errors import BadCheckpoint
from ssl_core.evaluation.logistic_regression import Setting
from ssl_core.events import Checkpoint, Log
from ssl_core.serialization import checkpoint

FOLDER = LinearEval.checkpoint_folder
_EVERY_SECONDS = 120.0
_KEPT = 2

State = dict[str, Any]  # tensors and plain values


@dataclass(frozen=True)
class FitResult:
    """What a fit came to."""

    setting: Setting
    ranks: Tensor  # int32 N, of the test images (ssl_core.evaluation.accuracy.ranks)
    details: dict[str, Any]  # by class, where they are shown


class LinearEvalCheckpoint:
    """Fits are noted in the order in which the evaluation makes them, which is always the same."""

    def __init__(self, directory: Path, about: Mapping[str, Any]) -> None:
        """about: what tells this evaluation from any other, as plain values."""
        self._folder = directory / FOLDER
        self._about = dict(about)
        self._found: list[FitResult] = []
        self._known: deque[FitResult] = deque()  # of an earlier attempt, not recalled yet
        self._under_way: State | None = None
        self._saved_at = time.monotonic()
        self.news = False  # whether there is something that no checkpoint has

    def read(self, path: Path | None) -> Iterator[Log]:
        """Go on from a checkpoint, if it is of this evaluation; say so."""
        if path is None:
            return
        try:
            saved = checkpoint.load(path)
            if saved.get("about") != self._about:
                raise BadCheckpoint(f"{path.name} is of another run.")
        except BadCheckpoint as fault:
            checkpoint.clear(self._folder)  # or they would count as further than what is found now
            yield Log("warning", f"{fault} The evaluation starts anew.", "checkpoint_unfit")
            return
        self._known.extend(FitResult(**found | {"setting": Setting(**found["setting"])}) for found in saved["found"])
        self._under_way = saved["under_way"]
        yield Log("info", f"Going on from the checkpoint of step {saved['step']}.", "resumed", {"step": saved["step"]})

    def recall(self) -> FitResult | None:
        """Return what the next fit came to in an earlier attempt, and note it; None when it is still to be made."""
        if not self._known:
            return None
        self._found.append(self._known.popleft())
        return self._found[-1]

    def under_way(self) -> State | None:
        """Return how far an earlier attempt came with the fit that is to be made now; only once."""
        state, self._under_way = self._under_way, None
        return state

    def note(self, outcome: FitResult) -> None:
        """Take down what a fit came to."""
        self._found.append(outcome)
        self.news = True

    def keep(self, step: int, under_way: Callable[[], State] | None = None) -> Iterator[Checkpoint | Log]:
        """Write a checkpoint when the last one is old enough; under_way: the state of a fit that is half made."""
        if time.monotonic() - self._saved_at >= _EVERY_SECONDS:
            yield from self.save(step, under_way)

    def save(self, step: int, under_way: Callable[[], State] | None = None) -> Iterator[Checkpoint | Log]:
        """Write a checkpoint now. A full disk ends no evaluation."""
        state = {
            "about": self._about,
            "found": [asdict(outcome) for outcome in self._found],
            "under_way": under_way() if under_way else None,
        }
        written = checkpoint.keep(self._folder, step, state, _KEPT)
        self._saved_at = time.monotonic()
        self.news = written is None
        if written is None:
            yield checkpoint.no_room(step)
        else:
            yield Checkpoint(step, 0.0, f"{FOLDER}/{written.path.name}", written.sha256, written.size_bytes)
