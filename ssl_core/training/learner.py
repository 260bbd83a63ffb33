"""The learner: the state of a training run, and what one step of it does."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssl_core import rng
from ssl_core.augment.pipeline import ViewMaker
from ssl_core.augment.plan import Plan
from ssl_core.config import TrainingRun, Views, view_sets
from ssl_core.config.fields import known
from ssl_core.data.image_batch import ImageBatch
from ssl_core.data.image_store import ImageStore
from ssl_core.data.sampling import shuffle_epoch
from ssl_core.device import autocast, local_device, memory_format, send, to_device, use_in_thread
from ssl_core.distributed import collectives, process_group
from ssl_core.errors import BadCheckpoint
from ssl_core.methods import Output, RunPosition
from ssl_core.models import grad_cache
from ssl_core.models.encoder import Encoder
from ssl_core.optim import optimizers, schedule
from ssl_core.training import objectives
from ssl_core.training.compilation import Compilation, is_launch_bound
from ssl_core.training.training_data import TrainingData

_LEAST_SIDE = 4  # pixels, of the smallest view


@dataclass(frozen=True)
class StepInput:
    """What a step is taken on; its tensors, but the images', are on the CPU."""

    images: ImageBatch
    rows: Tensor  # int64 N, of this process
    plans: Sequence[Plan]  # one for each kind of view


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
        self.device = local_device(resolved.device)
        self.format = memory_format(self.device, resolved.precision)
        self.method = objectives.build_network(resolved, data)
        to_device(self.method, self.device, resolved.precision)
        self.compilation: Compilation | None = None
        if resolved.compile is True and resolved.devices == 1:  # more of them only in a run that is resumed
            self.compilation = Compilation(self.method, is_recorded=is_launch_bound(resolved))
        if resolved.chunk_size is not None:
            grad_cache.cache_gradients(self.method.backbone, resolved.chunk_size)
        self._network = process_group.data_parallel(self.method, self.device)
        peak_lr = schedule.compute_peak_lr(resolved)
        self.optimizer = optimizers.build(resolved.optimizer, self.method, peak_lr, resolved.precision)
        self.batch_size = min(known(resolved.batch_size), len(data.rows))  # of all processes together
        self.batch_size -= self.batch_size % collectives.world_size()
        self.steps_per_epoch = len(data.rows) // self.batch_size
        self.total_steps = resolved.epochs * self.steps_per_epoch
        self.step = 0  # steps done
        self._rows = torch.from_numpy(data.rows)
        self._labels = data.budget.labels if data.budget else None
        self._kinds = _number_views(view_sets(resolved.views))
        self._statistics = self.preprocessing.statistics(self.device)

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
    def is_compiled(self) -> bool:
        """Whether the network is computed by compiled functions."""
        return self.compilation is not None and self.compilation.is_active

    @property
    def num_views(self) -> int:
        """The number of views of an image in a step."""
        return sum(len(numbers) for _, numbers in self._kinds)

    def phase_starts(self) -> list[int]:
        """Return the step at which each image size begins, ascending from 0."""
        return [0, *(round(phase.until * self.total_steps) for phase in known(self.resolved.phases)[:-1])]

    def inputs(self, store: ImageStore) -> Generator[StepInput, None, None]:
        """Yield the input of every step to come. No device is waited for, so a thread may do this ahead."""
        use_in_thread(self.device)
        for step, rows in enumerate(self.batches(), self.step):
            yield self.prepare(store.batch(rows), rows, step)

    def prepare(self, images: ImageBatch, rows: Tensor, step: int) -> StepInput:
        """Return the input of a step on the images of these rows."""
        epoch, side = step // self.steps_per_epoch, self.image_size(step)
        return StepInput(images, rows, self._draw(images, rows, epoch, side))

    def views(self, images: ImageBatch, rows: Tensor, epoch: int, side: int) -> list[Tensor]:
        """Return an epoch's views of the images, float32 N×C×S×S in [0, 1] each, S being `side`; never compiled."""
        plans = self._draw(images, rows, epoch, side)
        stacks = self._render(images.to(self.device), plans, side, is_compiled=False)
        return [view for stack in stacks for view in stack.split(len(rows))]

    def advance(self, given: StepInput, *, watched: bool) -> StepOutput:
        """Take the next step, on the input that `inputs` yielded for it."""
        schedule.set_lr(self.optimizer, self.lr_factor())
        self.method.train()
        if self.compilation is None:
            output = self._compute(given)
        else:
            output = self.compilation.attempt(partial(self._compute, given), shape=self.image_size(self.step))
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
        return bool(torch.stack([p.isfinite().all() for p in self.method.parameters()]).all())

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

    def _compute(self, given: StepInput) -> Output:
        """The forward and the backward pass on an input."""
        views = self._views(given)
        # Dropout and the like draw from the global generator, which this makes a function of the step alone.
        torch.manual_seed(rng.stream(self.resolved.seed, rng.Stream.STEP, self.step) >> 1)
        with autocast(self.device, self.resolved.precision):
            output: Output = self._network(views, *self._targets(given.rows))
        output.loss.backward()
        return output

    def _views(self, given: StepInput) -> list[Tensor]:
        """Normalised views, N×C×S×S each."""
        # Not on a CPU, where the bytes of the views do not change from version to version.
        is_compiled = self.is_compiled and self.device.type != "cpu"
        images, side = given.images.to(self.device), self.image_size(self.step)
        stacks = self._render(images, given.plans, side, is_compiled=is_compiled)
        for stack in stacks:
            self._statistics.normalise_(stack)
        stacks = [stack.contiguous(memory_format=self.format) for stack in stacks]
        return [view for stack in stacks for view in stack.split(len(given.rows))]

    def _draw(self, images: ImageBatch, rows: Tensor, epoch: int, side: int) -> list[Plan]:
        return [
            self._make_maker(views, side).draw(images, rows, epoch, numbers, self.device)
            for views, numbers in self._kinds
        ]

    def _render(self, images: ImageBatch, plans: Sequence[Plan], side: int, *, is_compiled: bool) -> list[Tensor]:
        """The views of each kind, V·N×C×S×S in [0, 1]."""
        kinds = zip(self._kinds, plans, strict=True)
        return [self._make_maker(views, side, is_compiled).render(images, plan) for (views, _), plan in kinds]

    def _make_maker(self, views: Views, side: int, is_compiled: bool = False) -> ViewMaker:
        side = max(_LEAST_SIDE, round(side * views.size))
        channels = self.resolved.backbone.input_channels
        return ViewMaker(views, side, self.resolved.seed, channels=channels, is_compiled=is_compiled)

    def _targets(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The batch's labels, int64 N, of a run with labels; nothing of one without."""
        return () if self._labels is None else (send(self._labels[rows], self.device),)

    def _position(self) -> RunPosition:
        return RunPosition(self.step, self.total_steps, self.steps_per_epoch)

    def _grad_norm(self) -> Tensor:
        return torch.nn.utils.get_total_norm([p.grad for p in self.method.parameters() if p.grad is not None])


def _number_views(sets: Sequence[Views]) -> list[tuple[Views, range]]:
    """Each kind of view with the numbers of its views, which count from 0 over all kinds."""
    ends = list(itertools.accumulate(int(views.num_views) for views in sets))
    return [(views, range(end - int(views.num_views), end)) for views, end in zip(sets, ends, strict=True)]
