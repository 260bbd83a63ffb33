"""A training step of SimCLR, whole and in parts, and how long each takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import torch
from torch import Tensor

from benchmarks.acceptance.setup import Setup
from ssl_core import config as configs
from ssl_core.data.dataset import Dataset
from ssl_core.data.prefetch import prefetch
from ssl_core.device import Device, autocast, select_kernels
from ssl_core.training.learner import Learner, StepInput
from ssl_core.training.resolve import resolve
from ssl_core.training.training_data import TrainingData

_EPOCHS = 1000  # more than are taken


class TrainingStep:
    """The steps of a run that has begun; `input` is that of one of them, for its parts."""

    def __init__(self, setup: Setup, inputs: Iterator[StepInput], learner: Learner) -> None:
        self.setup, self.inputs, self.learner = setup, inputs, learner
        self.input = next(inputs)

    @classmethod
    @contextmanager
    def open(cls, setup: Setup, **fields: object) -> "Iterator[TrainingStep]":
        """Begin a run with SGD and these fields; its inputs are drawn in a thread, as in training."""
        dataset = Dataset.open(setup.data)
        asked = configs.parse(setup.config(epochs=_EPOCHS, optimizer={"name": "sgd"}, **fields), "pretrain")
        resolved = resolve(asked, dataset.report, Device.here(asked.device))
        select_kernels(exact=True)
        data = TrainingData.of(dataset, resolved)
        learner = Learner(resolved, data)
        learner.method.on_weights_loaded()
        with closing(prefetch(learner.inputs(data.images))) as inputs:
            yield cls(setup, inputs, learner)

    def take(self) -> None:
        """Take the next step: input, views, network, optimizer."""
        self.learner.advance(next(self.inputs), watched=False)

    def make_views(self) -> list[Tensor]:
        """Make the normalised views of one input, N×3×S×S each."""
        return self.learner._views(self.input)

    def train_network(self, views: list[Tensor]) -> None:
        """Forward, backward and optimizer alone, on views that are there."""
        learner = self.learner
        with autocast(learner.device, learner.resolved.precision):
            loss = learner.method(views).loss
        loss.backward()
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)


def measure_ms(setup: Setup, call: Callable[[], object], times: int) -> float:
    """Return the milliseconds of a call, the mean of several after a third as many, which warm up."""
    for _ in range(max(1, times // 3)):
        call()
    synchronize(setup)
    started = time.perf_counter()
    for _ in range(times):
        call()
    synchronize(setup)
    return 1000 * (time.perf_counter() - started) / times


def synchronize(setup: Setup) -> None:
    """Wait for the GPU, if there is one."""
    if setup.device == "cuda":
        torch.cuda.synchronize()
