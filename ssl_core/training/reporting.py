"""What a training run reports: metrics, progress, warnings, and the history for its curves."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_core.config import TrainingRun
from ssl_core.distributed import collectives
from ssl_core.evaluation import representation
from ssl_core.events import Event, Log, Metrics, Progress
from ssl_core.reports.history import History
from ssl_core.training.early_stopping import EarlyStopping
from ssl_core.training.learner import Learner, StepOutput
from ssl_core.training.loss_watch import LossWatch
from ssl_core.training.throughput import Throughput

_POINTS = 2_000  # about so many points of each training metric, plus one an epoch
_WARMING_SHARE = 0.1  # of the run: before, low variance is how networks begin, not a collapse


class Reporter:
    """Turns the outputs of steps into events, and keeps what checkpoints, the model and the summary need of them."""

    def __init__(self, resolved: TrainingRun, learner: Learner, *, evaluated: bool) -> None:
        """evaluated: whether there are online evaluations. Raises LabelsNeeded when early stopping needs them."""
        self._resolved, self._learner = resolved, learner
        self._log_every = max(1, learner.total_steps // _POINTS)
        self._losses: list[Tensor] = []  # of the steps since the last check that all are finite
        self._collapse_reported = False
        self._compiler_reported = False
        self.latest: dict[str, float | None] = {}  # each metric's last value
        self.history = History()
        self.early_stopping = EarlyStopping(resolved.stopping_rule, evaluated=evaluated)
        self.throughput = Throughput()
        self._loss_watch = LossWatch()

    def state(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint; the keys are those of every version."""
        return {
            "metrics": self.latest,
            "history": self.history.state(),
            "collapse_told": self._collapse_reported,
            "patience": self.early_stopping.state(),
            "seconds": self.throughput.seconds,
            "losses": self._loss_watch.state(),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from a loaded checkpoint; the first versions wrote no history and no early stopping."""
        self.latest = dict(saved["metrics"])
        self.history = History.of(saved.get("history", {}))
        self._collapse_reported = saved["collapse_told"]
        if "patience" in saved:
            self.early_stopping.load(saved["patience"])
        self.throughput.seconds = saved["seconds"]
        if "losses" in saved:
            self._loss_watch.load(saved["losses"])

    def is_logged(self, step: int) -> bool:
        """Whether that step's metrics are reported."""
        return step % self._log_every == 0 or step % self._learner.steps_per_epoch == 0

    def add_loss(self, loss: Tensor) -> None:
        """Keep a step's loss, on its device, until `first_bad_step` reads it."""
        self._losses.append(loss)

    def first_bad_step(self) -> int | None:
        """Return the first step since the last call whose loss is not finite."""
        losses, self._losses = self._losses, []
        finite = torch.stack(losses).isfinite().tolist() if losses else []
        return None if all(finite) else self._learner.step - len(losses) + 1 + finite.index(False)

    def report_compiler(self) -> Iterator[Log]:
        """Yield a warning, once, when the compiler has failed and the run goes on without it."""
        compilation = self._learner.compilation
        if compilation is not None and compilation.failure is not None and not self._compiler_reported:
            self._compiler_reported = True
            message = "The network could not be compiled; the run goes on without, at a lower speed."
            yield Log("warning", message, "compiler_failed", {"reason": compilation.failure})

    def report(self, output: StepOutput) -> Iterator[Event]:
        """Yield the metrics of the step just taken, warnings of a collapse and of divergence, and the progress."""
        values = self._training_metrics(output)
        yield self.metrics(values)
        yield from self._collapse(values)
        if warning := self._loss_watch.update(self._learner.step, values["train/loss"], values["train/lr"]):
            yield warning
        yield self._progress(values["train/images_per_second"])

    def metrics(self, values: Mapping[str, float]) -> Metrics:
        """Keep the values, at the present step, and return their event; one that is not finite becomes None."""
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.latest |= clean
        step, now = self._learner.step, time.time()
        epoch = step / self._learner.steps_per_epoch
        self.history.add(step, now, clean)
        self.early_stopping.update(values, epoch)
        return Metrics(step, epoch, now, clean)

    def summary(self, final: Mapping[str, Any]) -> dict[str, Any]:
        """Return the summary of a finished run; final: the accuracies of the final network."""
        learner, latest = self._learner, self.latest
        return {
            "epochs": learner.step // learner.steps_per_epoch,
            "steps": learner.step,
            "stopped_early": self.early_stopping.stopped,
            "minutes": self.throughput.seconds / 60,
            "images_per_second": learner.step * learner.batch_size / max(self.throughput.seconds, 1e-9),
            "loss": latest.get("train/loss"),
            **final,
            "std": latest.get("train/std"),
            "rankme": latest.get("train/rankme"),
            "collapsed": self._is_collapsed(),
        }

    def _training_metrics(self, output: StepOutput) -> dict[str, float]:
        window, learner = self.throughput.window(), self._learner
        values = {
            "train/loss": output.loss.item(),
            "train/lr": max(group["lr"] for group in learner.optimizer.param_groups if not group["constant_lr"]),
            "train/images_per_second": window.steps * learner.batch_size / max(window.seconds, 1e-9),
            "train/data_wait": window.waited / max(window.seconds, 1e-9),
            "train/std": representation.feature_std(output.z),
        }
        if output.grad_norm is not None:
            values["train/grad_norm"] = output.grad_norm.item()
        if learner.step % learner.steps_per_epoch == 0:
            values |= self._representation_metrics(output.z)
        return values

    def _representation_metrics(self, z: Tensor) -> dict[str, float]:
        if self._learner.num_views == 1:
            return representation.measure_spectrum(z)
        return representation.measure(z, self._learner.batch_size // collectives.world_size())

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

    def _collapse(self, values: Mapping[str, float]) -> Iterator[Log]:
        """The warning of a collapse, once in a run."""
        step = self._learner.step
        if self._collapse_reported or step < _WARMING_SHARE * self._learner.total_steps:
            return
        if "train/rankme" in values and self._is_collapsed():
            self._collapse_reported = True
            yield Log(
                "warning",
                "The network gives nearly the same embedding to every image. A lower learning rate, stronger views,"
                " or another method may help.",
                "collapse",
                {"step": step, "std": values["train/std"], "rankme": values["train/rankme"]},
            )

    def _is_collapsed(self) -> bool:
        if self._resolved.learns_labels:
            return False  # what tells two classes apart may be one direction
        std, rank = self.latest.get("train/std"), self.latest.get("train/rankme")
        return std is not None and rank is not None and representation.is_collapsed(std, rank)
