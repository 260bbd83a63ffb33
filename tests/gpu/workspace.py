"""A workspace: the folder of the runs, with the datasets and models that they start from, made when first asked for."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_core import config as configs
from ssl_core.data.pack import pack_folder
from ssl_core.events import Failed
from ssl_core.inputs import Inputs
from ssl_core.run import run
from tests.gpu.pretended.record import RECORD

CLASSES = "abc"
_COUNTS = {"train": 96, "test": 48}
_SMALL = ((32, 32),)
_MIXED = ((40, 60), (70, 50), (96, 96))  # each class has its size, and its canvas

# A run of a few seconds that trains, evaluates and saves checkpoints.
TRAINING: Mapping[str, Any] = {
    "device": "cuda",
    "precision": "bf16",
    "batch_size": 48,
    "epochs": 2,
    "image_size": 32,
    "backbone": {"name": "resnet10", "width": 0.25},
    "evaluation": {"every_epochs": 1, "max_images": 48},
    "checkpoints": {"every_steps": 2},
    "pictures": False,
}
PRETRAINING: Mapping[str, Any] = {**TRAINING, "method": {"name": "simclr"}}


class RunFailed(Exception):
    """A run ended in a Failed event."""


class Workspace:
    """Makes what it holds in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = iter(range(10**9))

    def run(
        self,
        config: Mapping[str, Any],
        dataset: Path,
        *,
        model: Path | None = None,
        checkpoint: Path | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Path:
        """Run a config to its end, or until `stop`, and return its folder. Raises RunFailed."""
        folder = self._folder / f"run-{next(self._names)}"
        folder.mkdir()
        inputs = Inputs(dataset, model, checkpoint, stop or (lambda: False))
        for event in run(configs.parse(dict(config), config.get("kind", "pretrain")), inputs, folder):
            if isinstance(event, Failed):
                raise RunFailed(f"{event.code}: {event.message}")
        return folder

    @cached_property
    def small(self) -> Path:
        """A packed dataset of images of 32×32 pixels."""
        return self._pack("small", _SMALL)

    @cached_property
    def mixed(self) -> Path:
        """A packed dataset of images of three sizes, on three canvases."""
        return self._pack("mixed", _MIXED)

    @cached_property
    def pretrained(self) -> Path:
        """A model that SimCLR trained."""
        return self._train(PRETRAINING)

    @cached_property
    def supervised(self) -> Path:
        """A classifier."""
        return self._train({**TRAINING, "kind": "supervised"})

    def _train(self, config: Mapping[str, Any]) -> Path:
        """Return the model of a run, which the record leaves out."""
        folder = self.run(config, self.small)
        RECORD.take()
        return folder / "model"

    def _pack(self, name: str, sizes: tuple[tuple[int, int], ...]) -> Path:
        """Pack coloured noise in three classes."""
        rng, raw = np.random.default_rng(0), self._folder / f"{name}-images"
        for split, count in _COUNTS.items():
            for number in range(count):
                kind = number % len(CLASSES)
                pixels = rng.integers(0, 255, (*sizes[kind % len(sizes)], 3), dtype=np.uint8)
                pixels[..., kind] //= 4
                path = raw / split / CLASSES[kind] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
        pack_folder(raw, self._folder / name)
        return self._folder / name
