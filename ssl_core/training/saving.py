"""What a training run saves: checkpoints on the way, and the model at its end."""

import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ssl_core.config import TrainingRun
from ssl_core.device import describe_gpu
from ssl_core.distributed import collectives
from ssl_core.errors import Diverged
from ssl_core.events import Checkpoint, Log, Model
from ssl_core.files import FULL, WrittenFile
from ssl_core.serialization import checkpoint, checkpoint_files, saved_model
from ssl_core.training.learner import Learner
from ssl_core.training.training_data import TrainingData

MODEL_FOLDER = "model"
_RETRY_SECONDS, _MOST_RETRY_SECONDS = 10.0, 320.0  # between two tries to write the model to a full disk: doubling
_STOP_SECONDS = 0.2  # how often a stop is looked for meanwhile


class Saver:
    """Writes a run's checkpoints and its model, and knows the last good checkpoint."""

    def __init__(
        self,
        resolved: TrainingRun,
        data: TrainingData,
        learner: Learner,
        directory: Path,
        stop: Callable[[], bool],
        origin: Mapping[str, Any],
    ) -> None:
        """origin: what the model's card says of where it comes from (`ssl_core.serialization.provenance`)."""
        self._resolved, self._data, self._learner = resolved, data, learner
        self._directory, self._stop, self._origin = directory, stop, origin
        self._saved_at = time.monotonic()
        self._saved_step = 0

    def resumed(self, step: int) -> None:
        """Take the checkpoint of that step for the last good one."""
        self._saved_step = step

    def is_current(self) -> bool:
        """Whether the last checkpoint is of the present step."""
        return self._learner.step == self._saved_step

    def is_due(self) -> bool:
        """Whether the config asks for a checkpoint now."""
        settings = self._resolved.checkpoints
        if settings.every_steps is not None and self._learner.step % settings.every_steps == 0:
            return True
        return time.monotonic() - self._saved_at >= 60 * settings.every_minutes

    def save(self, reported: Mapping[str, Any]) -> Iterator[Checkpoint | Log]:
        """Write a checkpoint. Raises Diverged when a weight is not finite.

        reported: the reporter's state. A full disk is a warning, and the next checkpoint is due in the usual time.
        """
        learner = self._learner
        if not learner.is_finite():
            message = f"The weights stopped being numbers at or before step {learner.step}."
            raise self.diverged(message, step=learner.step)
        state = {
            **learner.state(),
            **reported,
            "config": self._resolved.model_dump(mode="json"),
            "dataset": fingerprint(self._data),
            "versions": versions(self._learner.device, is_compiled=self._learner.is_compiled),
            "device": str(learner.device),
        }
        written = checkpoint.save_if_room(self._directory, learner.step, state)
        self._saved_at = time.monotonic()
        if written is None:
            yield checkpoint.warn_storage_full(learner.step)
            return
        self._saved_step = learner.step
        epoch, metrics = learner.step / learner.steps_per_epoch, dict(reported["metrics"])
        yield Checkpoint(learner.step, epoch, written.path.name, written.sha256, written.size_bytes, metrics)

    def diverged(self, message: str, **data: Any) -> Diverged:
        """Return the error of a run whose numbers are not finite, with the checkpoint to resume from."""
        if not self._saved_step:
            return Diverged(message, **data, checkpoint=None)
        last = checkpoint_files.file_name(self._saved_step)
        return Diverged(f"{message} {last} is the last good checkpoint.", **data, checkpoint=last)

    def model(
        self, metrics: Mapping[str, float | None], final: Mapping[str, Any]
    ) -> Generator[Log, None, Model | None]:
        """Write the model as soon as there is room for it, and return its event; None when the run is stopped before.

        Waiting costs less than training it again from an old checkpoint. final: the accuracies of the final network.
        """
        about, wait = self._card(metrics, final), _RETRY_SECONDS
        while True:
            try:
                weights, card = self._write_model(about)
            except OSError as error:
                if error.errno not in FULL:
                    raise
            else:
                return Model(MODEL_FOLDER, weights.sha256, weights.size_bytes, card["dim"], card)
            message = "The storage is full: the model waits in memory until there is room."
            yield Log("warning", message, "storage_full", {"step": self._learner.step})
            if self._is_stopped_within(wait):
                return None
            wait = min(2 * wait, _MOST_RETRY_SECONDS)

    def _card(self, metrics: Mapping[str, float | None], final: Mapping[str, Any]) -> dict[str, Any]:
        resolved, data, budget = self._resolved, self._data, self._data.budget
        dataset = {"classes": data.dataset.classes, "images": len(data.rows)}
        return {
            **self._origin,
            "method": resolved.method_name,
            "config": resolved.model_dump(mode="json"),
            "metrics": {**metrics, **{name: final[name] for name in ("top1",) if name in final}},
            "classifier": {"classes": budget.classes} if budget else None,
            "dataset": {**self._origin.get("dataset", {}), **dataset},
            "versions": versions(self._learner.device, is_compiled=self._learner.is_compiled),
        }

    def _write_model(self, about: Mapping[str, Any]) -> tuple[WrittenFile, dict[str, Any]]:
        learner, folder = self._learner, self._directory / MODEL_FOLDER
        return saved_model.save(folder, learner.encoder(), self._resolved.backbone, learner.method.heads(), about)

    def _is_stopped_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stop():
                return True
            time.sleep(_STOP_SECONDS)
        return False


def fingerprint(data: TrainingData) -> dict[str, Any]:
    """Return what tells one dataset from another, so that a run is not resumed on other images."""
    return {"images": len(data.dataset), "rows": len(data.rows), "mean": data.dataset.mean}


def versions(device: torch.device, *, is_compiled: bool = False) -> dict[str, str]:
    """Return the versions and the hardware under which a resumed run gives the same bytes."""
    # The order in which a sum is computed depends on the number of threads, and of processes.
    hardware = describe_gpu() if device.type == "cuda" else {"threads": str(torch.get_num_threads())}
    return {
        "twoviews": _own_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "devices": str(collectives.world_size()),
        **hardware,
        **({"compiled": "true"} if is_compiled else {}),
    }


def _own_version() -> str:
    try:
        return metadata.version("twoviews")
    except metadata.PackageNotFoundError:
        return "not installed"
