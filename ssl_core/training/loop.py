"""The training loop, with labels or without: a generator of events. It does not know who is watching.

Nothing a step does depends on the clock or on what was yielded, so a run that is killed anywhere and goes on from a
checkpoint ends with the same weights, to the byte on a CPU.
"""

import math
import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_core.config import Pretrain, TrainingRun
from ssl_core.data.image_batch import Pixels
from ssl_core.data.prefetch import ahead
from ssl_core.distributed import collectives
from ssl_core.errors import Diverged
from ssl_core.evaluation import representation
from ssl_core.evaluation.online_accuracy import Examiner
from ssl_core.events import Artifact, Checkpoint, Event, Log, Metrics, Model, Progress, Result, Stopped
from ssl_core.files import FULL
from ssl_core.reports.history import History
from ssl_core.serialization import checkpoint, saved_model
from ssl_core.training import figures, objectives
from ssl_core.training.early_stopping import Patience
from ssl_core.training.learner import Learner, Taken
from ssl_core.training.throughput import Stopwatch
from ssl_core.training.training_data import Material

MODEL_FOLDER = "model"
_POINTS = 2_000  # about so many points of each training metric, plus one an epoch
_TOLD_ROWS = 1_000  # at most, of the images in a batch whose loss is no number
_ROOM_SECONDS, _MOST_ROOM_SECONDS = 10.0, 320.0  # between two looks for room for the model: doubling, up to
_STOP_SECONDS = 0.2  # how soon a stop is seen meanwhile
_WARMING_SHARE = 0.1  # of the run: before, low variance is how networks begin, not a collapse


class Training:
    """A training run under way."""

    def __init__(
        self,
        resolved: TrainingRun,
        material: Material,
        directory: Path,
        stop: Callable[[], bool],
        origin: Mapping[str, Any] | None = None,
        *,
        new: bool,
    ) -> None:
        """directory: where checkpoints and the model are written; origin: what the new model's card says of it
        (`ssl_core.serialization.provenance`); new: `resume` will not follow.
        """
        self._resolved = resolved
        self._material = material
        self._directory = directory
        self._stop = stop
        self._origin = origin or {}
        self._learner = Learner(resolved, material)
        self._log_every = max(1, self._learner.total_steps // _POINTS)
        self._latest: dict[str, float | None] = {}  # each metric's last value
        self._history = History()
        self._collapse_told = False
        early_stop = resolved.early_stop if isinstance(resolved, Pretrain) else None
        self._patience = Patience(early_stop, judged=material.monitor is not None)
        self._unread: list[Tensor] = []  # losses that nobody has looked at yet
        self._saved_step = 0
        self._saved_at = time.monotonic()
        self._watch = Stopwatch()
        if new:
            objectives.start(self._learner.method, resolved, material.model)
        self._learner.method.begin()

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a loaded checkpoint. Raises BadCheckpoint when it is another network's."""
        self._learner.load(saved, saved["step"])
        self._latest = dict(saved["metrics"])
        self._history = History.of(saved.get("history", {}))  # which checkpoints once lacked
        self._collapse_told = saved["collapse_told"]
        if "patience" in saved:  # which checkpoints once lacked
            self._patience.load(saved["patience"])
        self._watch.seconds = saved["seconds"]
        self._saved_step = saved["step"]

    def events(self) -> Iterator[Event]:
        """Train to the end, or until told to stop. Raises Diverged."""
        learner = self._learner
        if learner.step == 0 and self._resolved.pictures:
            yield from figures.of_start(learner, self._material, self._directory)
        try:
            yield from self._trained()
        except Diverged:
            yield from self._curves()
            raise

    def _trained(self) -> Iterator[Event]:
        learner = self._learner
        with closing(self._batches()) as batches:
            while self._goes_on():
                with self._watch.waiting():
                    images, batch = next(batches)
                with self._watch.running():
                    taken = learner.advance(images, batch, watched=self._is_logged(learner.step + 1))
                self._unread.append(taken.loss)
                yield from self._after(taken)
        if learner.step < learner.total_steps and not self._patience.over:
            yield from self._save()
            yield Stopped(learner.step)
            return
        yield from self._finish()

    def follow(self) -> None:
        """Take the steps that the first of several processes takes, and report nothing."""
        with closing(self._batches()) as batches:
            while self._goes_on():
                images, batch = next(batches)
                self._learner.advance(images, batch, watched=False)

    def _goes_on(self) -> bool:
        """Whether there is a next step; the first process decides for all."""
        if self._learner.step == self._learner.total_steps:
            return False
        return collectives.agreed(not self._patience.over and not self._stop())

    def _batches(self) -> Generator[tuple[Pixels, Tensor], None, None]:
        """The images and rows of every step to come."""
        images = self._material.images
        batches = ((images.batch(rows), rows) for rows in self._learner.batches())
        # A thread that only copies from memory would gain nothing, and take processors from the step.
        return batches if images.in_memory else ahead(batches)

    def _after(self, taken: Taken) -> Iterator[Event]:
        """What follows a step: its metrics, then those of an evaluation, then a checkpoint."""
        if self._is_logged(self._learner.step):
            yield from self._report(taken)
        if self._is_evaluated(self._learner.step) and self._material.monitor is not None:
            yield self._metrics(self._material.monitor.judge(self._learner.encoder()))
        if self._is_saved():
            yield from self._save()

    def _is_logged(self, step: int) -> bool:
        return step % self._log_every == 0 or step % self._learner.steps_per_epoch == 0

    def _is_evaluated(self, step: int) -> bool:
        every = self._resolved.evaluation.every_epochs
        if every == 0 or step % self._learner.steps_per_epoch:
            return False
        assert every != "auto"
        return (step // self._learner.steps_per_epoch) % every == 0 or self._is_last(step)

    def _is_last(self, step: int) -> bool:
        return step == self._learner.total_steps or self._patience.over

    def _is_saved(self) -> bool:
        settings = self._resolved.checkpoints
        if settings.every_steps is not None and self._learner.step % settings.every_steps == 0:
            return True
        return time.monotonic() - self._saved_at >= 60 * settings.every_minutes

    def _report(self, taken: Taken) -> Iterator[Event]:
        self._require_finite()
        window = self._watch.lap()
        values: dict[str, float] = {
            "train/loss": taken.loss.item(),
            "train/lr": max(group["lr"] for group in self._learner.optimizer.param_groups if not group["constant_lr"]),
            "train/images_per_second": window.steps * self._learner.batch_size / max(window.seconds, 1e-9),
            "train/data_wait": window.waited / max(window.seconds, 1e-9),
            "train/std": representation.feature_std(taken.z),
        }
        if taken.grad_norm is not None:
            values["train/grad_norm"] = taken.grad_norm.item()
        if self._learner.step % self._learner.steps_per_epoch == 0:
            values |= self._health(taken.z)
        yield self._metrics(values)
        yield from self._warn_of_collapse(values)
        yield self._progress(values["train/images_per_second"])

    def _health(self, z: Tensor) -> dict[str, float]:
        if self._learner.num_views == 1:
            return representation.spectrum(z)
        return representation.measure(z, self._learner.batch_size // collectives.world_size())

    def _metrics(self, values: dict[str, float]) -> Metrics:
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._latest |= clean
        step, now = self._learner.step, time.time()
        self._history.add(step, now, clean)
        self._patience.heed(values, step / self._learner.steps_per_epoch)
        return Metrics(step, step / self._learner.steps_per_epoch, now, clean)

    def _progress(self, images_per_second: float) -> Progress:
        learner = self._learner
        return Progress(
            epoch=learner.step // learner.steps_per_epoch,
            epochs=learner.total_steps // learner.steps_per_epoch,
            step=learner.step,
            total_steps=learner.total_steps,
            images_per_second=images_per_second,
            eta_seconds=learner.batch_size / max(images_per_second, 1e-9) * learner.steps_left(),
        )

    def _warn_of_collapse(self, values: dict[str, float]) -> Iterator[Log]:
        if self._collapse_told or self._learner.step < _WARMING_SHARE * self._learner.total_steps:
            return
        if "train/rankme" in values and self._collapsed():
            self._collapse_told = True
            yield Log(
                "warning",
                "The network gives nearly the same embedding to every image. A lower learning rate, stronger views,"
                " or another method may help.",
                "collapse",
                {"step": self._learner.step, "std": values["train/std"], "rankme": values["train/rankme"]},
            )

    def _collapsed(self) -> bool:
        if not isinstance(self._resolved, Pretrain):
            return False  # what tells two classes apart may be one direction
        std, rank = self._latest.get("train/std"), self._latest.get("train/rankme")
        return std is not None and rank is not None and representation.collapsed(std, rank)

    def _require_finite(self) -> None:
        """Read the losses since the last look. Raises Diverged, naming the step at which it began."""
        unread, self._unread = self._unread, []
        finite = torch.stack(unread).isfinite().tolist() if unread else []
        if all(finite):
            return
        step = self._learner.step - len(unread) + 1 + finite.index(False)
        raise self._diverged(
            f"The loss stopped being a number at step {step} of {self._learner.total_steps}."
            " A lower learning rate or a longer warm-up usually helps.",
            step=step,
            rows=self._learner.rows(step - 1)[:_TOLD_ROWS].tolist(),
        )

    def _diverged(self, message: str, **data: Any) -> Diverged:
        if not self._saved_step:
            return Diverged(message, **data, checkpoint=None)
        kept = checkpoint.name(self._saved_step)
        return Diverged(f"{message} {kept} is the last good checkpoint.", **data, checkpoint=kept)

    def _save(self) -> Iterator[Checkpoint | Log]:
        """Write a checkpoint, unless there is nothing new. Raises Diverged rather than keep what is no number.

        A full disk ends no run: the next checkpoint is due as if this one had been written.
        """
        learner = self._learner
        if learner.step == self._saved_step:
            return
        self._require_finite()
        if not learner.finite():
            raise self._diverged(
                f"The weights stopped being numbers at or before step {learner.step}.", step=learner.step
            )
        state = learner.state() | {
            "config": self._resolved.model_dump(mode="json"),
            "dataset": fingerprint(self._material),
            "metrics": self._latest,
            "history": self._history.state(),
            "collapse_told": self._collapse_told,
            "patience": self._patience.state(),
            "seconds": self._watch.seconds,
            "versions": versions(),
            "device": str(learner.device),
        }
        written = checkpoint.keep(self._directory, learner.step, state, self._resolved.checkpoints.keep)
        self._saved_at = time.monotonic()
        if written is None:
            yield checkpoint.no_room(learner.step)
            return
        self._saved_step = learner.step
        epoch = learner.step / learner.steps_per_epoch
        name = written.path.name
        yield Checkpoint(learner.step, epoch, name, written.sha256, written.size_bytes, dict(self._latest))

    def _finish(self) -> Iterator[Event]:
        """The last checkpoint, the curves, the model, and the summary."""
        if self._patience.over:
            message, evidence = self._patience.told(self._learner.step)
            yield Log("info", message, "stopped_early", evidence)
        yield from self._save()
        yield from self._curves()
        verdict = self._verdict()
        model = yield from self._model(verdict)
        if model is None:
            yield from self._save()  # there may be room for this now
            yield Stopped(self._learner.step)
            return
        yield model
        learner = self._learner
        images = learner.step * learner.batch_size
        latest = self._latest
        yield Result(
            {
                "epochs": learner.step // learner.steps_per_epoch,
                "steps": learner.step,
                "stopped_early": self._patience.over,
                "minutes": self._watch.seconds / 60,
                "images_per_second": images / max(self._watch.seconds, 1e-9),
                "loss": latest.get("train/loss"),
                **verdict,
                "std": latest.get("train/std"),
                "rankme": latest.get("train/rankme"),
                "collapsed": self._collapsed(),
            }
        )

    def _verdict(self) -> dict[str, Any]:
        """What the summary says of how good the network is."""
        if self._material.teaching is None:
            return {"knn": self._latest.get("online/knn"), "linear": self._latest.get("online/linear")}
        judge = self._material.monitor
        return judge.verdict(self._learner.encoder()) if isinstance(judge, Examiner) else {}

    def _curves(self) -> Iterator[Artifact | Log]:
        if self._resolved.pictures:
            yield from figures.of_end(self._learner, self._material, self._history, self._directory)

    def _model(self, verdict: Mapping[str, Any]) -> Generator[Log, None, Model | None]:
        """Write the model as soon as there is room for it, and return it; None when told to stop before.

        Waiting costs less than training it again from a checkpoint that may be old.
        """
        resolved, learner = self._resolved, self._learner
        classes, teaching = self._material.dataset.classes, self._material.teaching
        about = {
            **self._origin,
            "method": resolved.method.name if isinstance(resolved, Pretrain) else resolved.kind,
            "config": resolved.model_dump(mode="json"),
            "metrics": self._latest | {name: verdict[name] for name in ("top1",) if name in verdict},
            "classifier": {"classes": teaching.classes} if teaching else None,
            "dataset": {**self._origin.get("dataset", {}), "classes": classes, "images": len(self._material.rows)},
            "versions": versions(),
        }
        folder, patience = self._directory / MODEL_FOLDER, _ROOM_SECONDS
        while True:
            try:
                weights, card = saved_model.save(
                    folder, learner.encoder(), resolved.backbone, learner.method.heads(), about
                )
            except OSError as error:
                if error.errno not in FULL:
                    raise
            else:
                return Model(MODEL_FOLDER, weights.sha256, weights.size_bytes, card["dim"], card)
            message = "The storage is full: the model waits in memory until there is room."
            yield Log("warning", message, "storage_full", {"step": learner.step})
            if self._stopped_within(patience):
                return None
            patience = min(2 * patience, _MOST_ROOM_SECONDS)

    def _stopped_within(self, seconds: float) -> bool:
        """Wait, unless told to stop."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stop():
                return True
            time.sleep(_STOP_SECONDS)
        return False


def fingerprint(material: Material) -> dict[str, Any]:
    """Return what tells one dataset from another, so that a run does not go on with other images."""
    return {"images": len(material.dataset), "rows": len(material.rows), "mean": material.dataset.mean}


def versions() -> dict[str, str]:
    """Return the versions, and the number of threads, under which a resumed run promises the same bytes."""
    return {
        "twoviews": _own_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),  # a sum is made in the order of its threads
    }


def _own_version() -> str:
    try:
        return metadata.version("twoviews")
    except metadata.PackageNotFoundError:
        return "not installed"
