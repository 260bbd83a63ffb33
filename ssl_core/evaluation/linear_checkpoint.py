"""Checkpoints of a linear evaluation: the finished fits and the state of the current one.

A checkpoint of another evaluation is not resumed from.
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
from ssl_core.serialization import checkpoint, checkpoint_files

FOLDER = LinearEval.checkpoint_folder
_EVERY_SECONDS = 120.0

State = dict[str, Any]  # tensors and plain values


@dataclass(frozen=True)
class FitResult:
    """The result of one fit."""

    setting: Setting
    ranks: Tensor  # int32 N, of the test images (ssl_core.evaluation.accuracy.compute_ranks)
    details: dict[str, Any]  # per-class metrics; empty when they are not reported


class LinearEvalCheckpoint:
    """The fits of an evaluation, in their order, which is always the same."""

    def __init__(self, directory: Path, fingerprint: Mapping[str, Any]) -> None:
        """fingerprint: plain values that identify the evaluation."""
        self._folder = directory / FOLDER
        self._fingerprint = dict(fingerprint)
        self._results: list[FitResult] = []
        self._resumed: deque[FitResult] = deque()  # of the loaded checkpoint, not used yet
        self._fit_state: State | None = None
        self._saved_at = time.monotonic()
        self.has_unsaved = False  # whether a result is in no checkpoint

    def load(self, path: Path | None) -> Iterator[Log]:
        """Resume from a checkpoint if it is of this evaluation, and log which."""
        if path is None:
            return
        try:
            saved = checkpoint.load(path)
            if saved.get("about") != self._fingerprint:
                raise BadCheckpoint(f"{path.name} is of another run.")
        except BadCheckpoint as fault:
            checkpoint_files.delete_all(self._folder)  # their steps may be higher than those of this evaluation
            yield Log("warning", f"{fault} The evaluation starts anew.", "checkpoint_unfit")
            return
        self._resumed.extend(FitResult(**found | {"setting": Setting(**found["setting"])}) for found in saved["found"])
        self._fit_state = saved["under_way"]
        yield Log("info", f"Going on from the checkpoint of step {saved['step']}.", "resumed", {"step": saved["step"]})

    def next_result(self) -> FitResult | None:
        """Return the result of the next fit, if the loaded checkpoint has it."""
        if not self._resumed:
            return None
        self._results.append(self._resumed.popleft())
        return self._results[-1]

    def take_fit_state(self) -> State | None:
        """Return the loaded checkpoint's state of an unfinished fit, which is the next one; only once."""
        state, self._fit_state = self._fit_state, None
        return state

    def add(self, result: FitResult) -> None:
        """Add the result of a fit."""
        self._results.append(result)
        self.has_unsaved = True

    def save_if_due(self, step: int, fit_state: Callable[[], State] | None = None) -> Iterator[Checkpoint | Log]:
        """Write a checkpoint when the last one is old enough; fit_state: returns the state of an unfinished fit."""
        if time.monotonic() - self._saved_at >= _EVERY_SECONDS:
            yield from self.save(step, fit_state)

    def save(self, step: int, fit_state: Callable[[], State] | None = None) -> Iterator[Checkpoint | Log]:
        """Write a checkpoint; on a full disk yield a warning instead."""
        state = {
            "about": self._fingerprint,
            "found": [asdict(result) for result in self._results],
            "under_way": fit_state() if fit_state else None,
        }
        written = checkpoint.save_if_room(self._folder, step, state)
        self._saved_at = time.monotonic()
        self.has_unsaved = written is None
        if written is None:
            yield checkpoint.warn_storage_full(step)
        else:
            yield Checkpoint(step, 0.0, f"{FOLDER}/{written.path.name}", written.sha256, written.size_bytes)
