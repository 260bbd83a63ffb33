"""The learner: the state of a training run, and what one step of it does."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_core import rng
from ssl_core.augment.pipeline import ViewMaker
from ssl_core.config import TrainingRun, Views, view_sets
from ssl_core.config.fields import known
from ssl_core.data.image_batch import ImageBatch
from ssl_core.data.sampling import shuffle_epoch
from ssl_core.device import autocast, memory_format, to_device
from ssl_core.distributed import collectives, process_group
from ssl_core.errors import BadCheckpoint
from ssl_core.methods import RunPosition
from ssl_core.models import grad_cache
from ssl_core.models.encoder import Encoder
from ssl_core.optim import optimizers, schedule
from ssl_core.training import objectives
from ssl_core.training.training_data import TrainingData

_LEAST_SIDE = 4  # pixels, of the smallest view


@dataclass(frozen=True)
class StepOutput:
    """What a step returns; tensors stay on the device, so that reading them does not wait for every step."""

    loss: Tensor  # scalar, of all processes' images
    z: Tensor  # M×D, of this process's
    grad_norm: Tensor | None  # scalar; None unless the step is watched


class Learner:
    """Method, optimizer and step count; what step s does depends on them, the config and s alone."""

    def __init__(self, resolved: TrainingRun, data: TrainingData) -> None:
        """resolved: a resolved config."""
        assert resolved.epochs is not None
        assert resolved.optimizer != "auto"
        self.resolved = resolved
        self.preprocessing = data.preprocessing
        self.device = torch.device(resolved.device)
        self.format = memory_format(self.device, resolved.precision)
        self.method = objectives.build_network(resolved, data)
        to_device(self.method, self.device, resolved.precision)
        if resolved.chunk_size is not None:
            grad_cache.cache_gradients(self.method.backbone, resolved.chunk_size)
        self._network = process_group.data_parallel(self.method, self.device)
        self.optimizer = optimizers.build(resolved.optimizer, self.method, schedule.compute_peak_lr(resolved))
        self.batch_size = min(resolved.batch_size, len(data.rows))  # of all processes together
        self.batch_size -= self.batch_size % collectives.world_size()
        self.steps_per_epoch = len(data.rows) // self.batch_size
        self.total_steps = resolved.epochs * self.steps_per_epoch
        self.step = 0  # steps done
        self._rows = torch.from_numpy(data.rows)
        self._labels = data.budget.labels if data.budget else None
        self._views_of_image = [views for views in view_sets(resolved.views) for _ in range(int(views.num_views))]

    def batches(self) -> Iterator[Tensor]:
        """Yield this process's rows of every step to come, int64 N each; an epoch's partial last batch is dropped."""
        size, start = self.batch_size, divmod(self.step, self.steps_per_epoch)
        for epoch in range(start[0], self.total_steps // self.steps_per_epoch):
            order = self._rows[shuffle_epoch(self.resolved.seed, epoch, len(self._rows))]
            for batch in range(start[1] if epoch == start[0] else 0, self.steps_per_epoch):
                yield collectives.select_local_rows(order[batch * size : (batch + 1) * size])

    def rows(self, step: int) -> Tensor:
        """Return the rows of a step's whole batch, of all processes, int64 N."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        order = self._rows[shuffle_epoch(self.resolved.seed, epoch, len(self._rows))]
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def image_size(self, step: int) -> int:
        """Return the side of the views at a step, in pixels."""
        phases = known(self.resolved.phases)
        return next(p.image_size for p in phases if step < round(p.until * self.total_steps) or p.until == 1)

    @property
    def num_views(self) -> int:
        """The number of views of an image in a step."""
        return len(self._views_of_image)

    def phase_starts(self) -> list[int]:
        """Return the step at which each image size begins, ascending from 0."""
        return [0, *(round(phase.until * self.total_steps) for phase in known(self.resolved.phases)[:-1])]

    def views(self, images: ImageBatch, rows: Tensor, epoch: int, side: int) -> list[Tensor]:
        """Return an epoch's views of the images, float32 N×3×S×S in [0, 1] each, S being `side`."""
        return [
            ViewMaker(views, _side(side, views), self.resolved.seed)(images, rows, epoch, view)
            for view, views in enumerate(self._views_of_image)
        ]

    def advance(self, images: ImageBatch, rows: Tensor, *, watched: bool) -> StepOutput:
        """Take the next step, on the images of the rows that `batches` yielded for it."""
        views = self._views(images, rows)
        # Dropout and the like draw from the global generator, which this makes a function of the step alone.
        torch.manual_seed(rng.stream(self.resolved.seed, rng.Stream.STEP, self.step) >> 1)
        schedule.set_lr(self.optimizer, self.lr_factor())
        self.method.train()
        with autocast(self.device, self.resolved.precision):
            output = self._network(views, *self._targets(rows))
        output.loss.backward()
        norm = self._grad_norm() if watched else None
        self.method.before_step(self._position())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.method.after_step(self._position())
        return StepOutput(collectives.mean(output.loss.detach()), output.z, norm)

    def lr_factor(self) -> float:
        """Return the factor of the peak learning rate at the present step."""
        return schedule.compute_lr_factor(self.resolved.schedule, self.step, self.total_steps, self.steps_per_epoch)

    def steps_left(self) -> float:
        """Return the number of steps to come, each weighted by its pixels relative to the last step's."""
        start, left, now = self.step, 0.0, self.image_size(max(0, self.step - 1))
        for phase in known(self.resolved.phases):
            end = round(phase.until * self.total_steps)
            left += max(0, end - start) * (phase.image_size / now) ** 2
            start = max(start, end)
        return left

    def is_finite(self) -> bool:
        """Whether every weight is finite."""
        return all(bool(p.isfinite().all()) for p in self.method.parameters())

    def encoder(self) -> Encoder:
        """Return the encoder, which shares the weights; the next step puts it back into training mode."""
        return self.method.encoder(self.preprocessing, self.resolved.precision)

    def state(self) -> dict[str, Any]:
        """Return the state dicts of method and optimizer, for a checkpoint."""
        return {"method": self.method.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any], step: int) -> None:
        """Restore what `state` returned after `step` steps. Raises BadCheckpoint when it is another network's."""
        try:
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise BadCheckpoint("The checkpoint holds the state of another network or optimizer.") from error
        self.step = step

    def _views(self, images: ImageBatch, rows: Tensor) -> list[Tensor]:
        """Normalised views, N×3×S×S each."""
        views = self.views(images, rows, self.step // self.steps_per_epoch, self.image_size(self.step))
        return [self.preprocessing.normalise_(view).contiguous(memory_format=self.format) for view in views]

    def _targets(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The batch's labels, int64 N, of a run with labels; nothing of one without."""
        return () if self._labels is None else (self._labels[rows].to(self.device),)

    def _position(self) -> RunPosition:
        return RunPosition(self.step, self.total_steps, self.steps_per_epoch)

    def _grad_norm(self) -> Tensor:
        return torch.nn.utils.get_total_norm([p.grad for p in self.method.parameters() if p.grad is not None])


def _side(side: int, views: Views) -> int:
    """The side of such views in a phase of that image size, in pixels."""
    return max(_LEAST_SIDE, round(side * views.size))
