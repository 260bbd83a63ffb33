"""The training loop, with labels or without: a generator of events. It does not depend on who reads them.

What a step does depends neither on the clock nor on what was yielded, so a run that is killed at any moment and resumed
from a checkpoint ends with the same weights, to the byte on a CPU.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ssl_core.config import TrainingRun
from ssl_core.config.fields import known
from ssl_core.data.prefetch import prefetch
from ssl_core.distributed import collectives
from ssl_core.errors import Diverged
from ssl_core.evaluation.online_accuracy import HeldOutAccuracy
from ssl_core.events import Artifact, Event, Log, Result, Stopped
from ssl_core.training import figures, objectives
from ssl_core.training.learner import Learner, StepInput, StepOutput
from ssl_core.training.reporting import Reporter
from ssl_core.training.saving import Saver, versions
from ssl_core.training.training_data import TrainingData

_LISTED_ROWS = 1_000  # at most, of the images in a batch whose loss is not finite


class Training:
    """A training run: a learner, what is reported of it, and what is saved of it."""

    def __init__(
        self,
        resolved: TrainingRun,
        data: TrainingData,
        directory: Path,
        stop: Callable[[], bool],
        origin: Mapping[str, Any] | None = None,
        *,
        new: bool,
    ) -> None:
        """directory: where checkpoints and the model are written; stop: asked before every step; origin: what the
        model's card says of where it comes from (`ssl_core.serialization.provenance`); new: `resume` does not follow.
        """
        self._resolved, self._data, self._directory, self._stop = resolved, data, directory, stop
        self._learner = Learner(resolved, data)
        self._reporter = Reporter(resolved, self._learner, evaluated=data.evaluator is not None)
        self._saver = Saver(resolved, data, self._learner, directory, stop, origin or {})
        if new:
            objectives.load_starting_weights(self._learner.method, resolved, data.model)
        self._learner.method.on_weights_loaded()

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a loaded checkpoint. Raises BadCheckpoint when it is another network's."""
        self._learner.load(saved, saved["step"])
        self._reporter.load(saved)
        self._saver.resumed(saved["step"])

    def versions(self) -> dict[str, str]:
        """Return the versions and the hardware under which this run gives the same bytes."""
        return versions(self._learner.device, is_compiled=self._learner.is_compiled)

    def events(self) -> Iterator[Event]:
        """Train to the end, or until a stop. Raises Diverged."""
        if self._learner.step == 0 and self._resolved.pictures:
            yield from figures.write_view_grid(self._learner, self._data, self._directory)
        try:
            yield from self._train()
        except Diverged:
            yield from self._curves()
            raise

    def follow(self) -> None:
        """Take the steps of the first of several processes, and part in its evaluations; report nothing."""
        with closing(self._inputs()) as inputs:
            while self._goes_on():
                self._learner.advance(next(inputs), watched=False)
                self._evaluate()
        self._evaluate_test(finished=False)

    def _train(self) -> Iterator[Event]:
        learner, throughput = self._learner, self._reporter.throughput
        with closing(self._inputs()) as inputs:
            while self._goes_on():
                with throughput.waiting():
                    given = next(inputs)
                with throughput.running():
                    output = learner.advance(given, watched=self._reporter.is_logged(learner.step + 1))
                self._reporter.add_loss(output.loss)
                yield from self._reporter.report_compiler()
                yield from self._after_step(output)
        if learner.step < learner.total_steps and not self._reporter.early_stopping.stopped:
            self._evaluate_test(finished=False)  # the other processes do not wait for it
            yield from self._save()
            yield Stopped(learner.step)
            return
        yield from self._finish()

    def _goes_on(self) -> bool:
        """Whether there is a next step; the first process decides for all."""
        if self._learner.step == self._learner.total_steps:
            return False
        return collectives.broadcast_decision(not self._reporter.early_stopping.stopped and not self._stop())

    def _inputs(self) -> Generator[StepInput, None, None]:
        """The input of every step to come."""
        inputs: Generator[StepInput, None, None] = self._learner.inputs(self._data.images)
        # On a CPU a thread that only draws would gain nothing, and take processors from the step.
        is_ahead = self._learner.device.type != "cpu" or not self._data.images.is_in_memory
        return prefetch(inputs) if is_ahead else inputs

    def _after_step(self, output: StepOutput) -> Iterator[Event]:
        """A step's metrics, then those of an online evaluation, then a checkpoint, each when it is due."""
        if self._reporter.is_logged(self._learner.step):
            self._require_finite()
            yield from self._reporter.report(output)
        if accuracies := self._evaluate():
            yield self._reporter.metrics(accuracies)
        if self._saver.is_due():
            yield from self._save()

    def _evaluate(self) -> dict[str, float]:
        """The accuracies of an online evaluation when it is due; all processes compute them, and the first has them."""
        evaluator, step = self._data.evaluator, self._learner.step
        if evaluator is None or step % self._learner.steps_per_epoch:
            return {}
        # Early stopping ends a run by an evaluation, and only the first process knows of it.
        if not collectives.broadcast_decision(self._is_evaluated(step)):
            return {}
        return evaluator.evaluate(self._learner.encoder())

    def _evaluate_test(self, *, finished: bool) -> dict[str, Any]:
        """A classifier's accuracy on the test split when the first process has finished; all compute it, as above."""
        evaluator = self._data.evaluator
        if not isinstance(evaluator, HeldOutAccuracy) or not collectives.broadcast_decision(finished):
            return {}
        return evaluator.evaluate_test(self._learner.encoder())

    def _is_evaluated(self, step: int) -> bool:
        every, steps_per_epoch = known(self._resolved.evaluation.every_epochs), self._learner.steps_per_epoch
        if every == 0 or step % steps_per_epoch:
            return False
        return (step // steps_per_epoch) % every == 0 or self._is_last(step)

    def _is_last(self, step: int) -> bool:
        return step == self._learner.total_steps or self._reporter.early_stopping.stopped

    def _save(self) -> Iterator[Event]:
        if not self._saver.is_current():
            self._require_finite()
            yield from self._saver.save(self._reporter.state())

    def _require_finite(self) -> None:
        """Raise Diverged, naming the step at which it began, when a loss since the last call is not finite."""
        step = self._reporter.first_bad_step()
        if step is not None:
            raise self._saver.diverged(
                f"The loss stopped being a number at step {step} of {self._learner.total_steps}."
                " A lower learning rate or a longer warm-up usually helps.",
                step=step,
                rows=self._learner.rows(step - 1)[:_LISTED_ROWS].tolist(),
            )

    def _finish(self) -> Iterator[Event]:
        """The last checkpoint, the curves, the model, and the summary."""
        early_stopping, step = self._reporter.early_stopping, self._learner.step
        if early_stopping.stopped:
            message, evidence = early_stopping.reason(step)
            yield Log("info", message, "stopped_early", evidence)
        yield from self._save()
        yield from self._curves()
        final = self._final_accuracy()
        model = yield from self._saver.model(self._reporter.latest, final)
        if model is None:
            yield from self._save()  # there may be room for this now
            yield Stopped(step)
            return
        yield model
        yield Result(self._reporter.summary(final))

    def _final_accuracy(self) -> dict[str, Any]:
        """What the summary says of how good the network is."""
        latest = self._reporter.latest
        if self._data.budget is None:
            return {"knn": latest.get("online/knn"), "linear": latest.get("online/linear")}
        return self._evaluate_test(finished=True)

    def _curves(self) -> Iterator[Artifact | Log]:
        if self._resolved.pictures:
            yield from figures.write_curves(self._learner, self._data, self._reporter.history, self._directory)
