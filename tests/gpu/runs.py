"""The runs: each method, kind of job and option that has a path of its own on a GPU, from the config to its result."""

import asyncio
import itertools
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from service.settings import Settings
from ssl_core.data import image_store
from ssl_core.data.dataset import Dataset
from ssl_core.data.decode import encode_png
from ssl_core.methods import METHODS
from ssl_core.optim.muon import Muon
from ssl_core.serialization import saved_model
from tests.gpu.pretended.record import RECORD, Counts
from tests.gpu.workspace import PRETRAINING, TRAINING, Workspace
from worker.encoder.batcher import Features
from worker.encoder.embedder import Embedder, LayerForward

Run = Callable[[Workspace], object]

_ON_GPU = {"device": "cuda", "precision": "bf16"}
_ALL_VIEWS = {
    "blur": 0.5,
    "solarize": 0.5,
    "gamma": 0.3,
    "noise": 0.05,
    "rotation": 10,
    "shear": 0.1,
    "scale": [0.9, 1.1],
    "translation": 0.1,
    "brightness_added": True,
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    name: str
    seconds: float
    counts: Counts
    error: str | None  # the error and where it was raised; None: the run ended as it should


def run_all(workspace: Workspace, names: list[str]) -> Iterator[Outcome]:
    """Yield the outcome of each of the named runs."""
    for name in names:
        RECORD.take()
        started, error = time.monotonic(), None
        try:
            RUNS[name](workspace)
        except Exception:  # noqa: BLE001 - reported, whatever it is
            error = traceback.format_exc()
        counts = RECORD.take()
        yield Outcome(name, time.monotonic() - started, counts, error or counts.caught_fault())


def _pretrain(dataset: str = "small", **changes: Any) -> Run:
    """A run of SimCLR with these fields changed."""
    return lambda workspace: workspace.run({**PRETRAINING, **changes}, getattr(workspace, dataset))


def _evaluate(**config: Any) -> Run:
    """A run of a kind that starts from a pretrained model."""
    return lambda workspace: workspace.run(config, workspace.small, model=workspace.pretrained)


def _supervised(workspace: Workspace) -> None:
    workspace.run({**TRAINING, "kind": "supervised"}, workspace.small)


def _finetune(workspace: Workspace) -> None:
    config = {name: value for name, value in TRAINING.items() if name != "backbone"}
    workspace.run({**config, "kind": "finetune"}, workspace.small, model=workspace.pretrained)


def _distill(workspace: Workspace) -> None:
    workspace.run({**TRAINING, "kind": "distill"}, workspace.small, model=workspace.supervised)


def _resume(workspace: Workspace) -> None:
    """A run that is stopped and resumed has the weights of one that was not."""
    config = {**PRETRAINING, "method": {"name": "byol"}, "checkpoints": {"every_steps": 1}}
    asked = count()
    stopped = workspace.run(config, workspace.small, stop=lambda: next(asked) == 3)
    resumed = workspace.run(config, workspace.small, checkpoint=max(stopped.glob("checkpoint-*.pt")))
    whole = workspace.run(config, workspace.small)
    assert _weights(resumed) == _weights(whole), "the resumed run has other weights"


def _weights(folder: Path) -> bytes:
    return (folder / "model" / "weights.safetensors").read_bytes()


def _decoded_again(workspace: Workspace) -> None:
    """The images do not fit into the memory of the host."""
    with patch.object(image_store, "_memory_budget", return_value=0.0):
        workspace.run({**PRETRAINING, "image_size": 48}, workspace.mixed)


def _host_memory(workspace: Workspace) -> None:
    """The images fit into the memory of the host, but not of the GPU."""
    with patch.object(torch.cuda, "mem_get_info", return_value=(1_000, 80 << 30)):
        workspace.run(PRETRAINING, workspace.small)


def _pinned_images(workspace: Workspace) -> None:
    """Images that are not on the GPU are read into one pinned block for each batch, whose bytes are those on a CPU."""
    for folder, budget in itertools.product((workspace.mixed, workspace.small), (0.0, 2.0**40)):
        dataset = Dataset.open(folder)
        rows = dataset.indices("train")
        batches = []
        for device in ("cuda", "cpu"):
            with (
                patch.object(image_store, "_memory_budget", return_value=budget),
                patch.object(torch.cuda, "mem_get_info", return_value=(1_000, 80 << 30)),
            ):
                store = image_store.ImageStore(dataset, rows, 48, torch.device(device))
            batches.append(store.batch(torch.from_numpy(rows[:20])))
        pinned, plain = batches
        assert pinned.pin() is pinned
        assert len({group.pixels.untyped_storage().data_ptr() for group in pinned.groups}) == 1
        pairs = zip(pinned.groups, plain.groups, strict=True)
        assert all(torch.equal(ours.gather(), theirs.gather()) for ours, theirs in pairs)


def _muon_in_batches(workspace: Workspace) -> None:
    """The batches of a GPU update weights as a CPU does, one by one; in bf16 nearly so."""
    shapes = ((8, 3, 3, 3), (8, 16, 3, 3), (16, 8, 1, 1), (16, 16, 3, 3), (16, 100), (100, 16), (16, 16, 5), (4, 400))
    for adapt, nesterov, dtype in itertools.product((True, False), (True, False), (torch.float32, torch.bfloat16)):
        generator, weights = torch.Generator().manual_seed(0), {}
        drawn = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(4)]
        for device in ("cpu", "cuda"):
            tensors = [[_to_channels_last(tensor.to(device)) for tensor in each] for each in drawn]
            weights[device] = [torch.nn.Parameter(tensor.clone()) for tensor in tensors[0]]
            muon = Muon(weights[device], lr=0.1, nesterov=nesterov, adapt=adapt, dtype=dtype)
            for gradients in tensors[1:]:
                for weight, gradient in zip(weights[device], gradients, strict=True):
                    weight.grad = gradient
                muon.step()
        for cpu, gpu in zip(weights["cpu"], weights["cuda"], strict=True):
            close = 1e-5 if dtype == torch.float32 or not adapt else 0.01  # of steps of 0.1
            torch.testing.assert_close(gpu.detach().cpu(), cpu.detach(), rtol=0, atol=close)


def _to_channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _embedder(workspace: Workspace) -> None:
    """The forward passes of the service's encoder, to every layer."""
    for precision in ("fp32", "bf16"):
        encoder = saved_model.load(workspace.pretrained, torch.device("cuda"), precision=precision)
        for layer, width in encoder.layers.items():
            features = LayerForward(encoder, layer)(np.zeros((4, 32, 32, 3), np.uint8))
            assert features.shape == (4, width)


def _embed_requests(workspace: Workspace) -> None:
    """The service's encoder computes in bf16 by default."""
    model = workspace.pretrained
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = asyncio.run(_embed(Settings(data_dir=model.parent), model.name, encode_png(image)))
    by_precision = {
        precision: LayerForward(saved_model.load(model, "cuda", precision=precision), "backbone")(image[None])
        for precision in ("bf16", "fp32")
    }
    assert np.array_equal(found, by_precision["bf16"])
    assert not np.array_equal(found, by_precision["fp32"])


async def _embed(settings: Settings, model_path: str, image: bytes) -> Features:
    embedder = Embedder(settings)
    await embedder.start()
    try:
        return await embedder.embed(model_path, "backbone", [image], "owner")
    finally:
        await embedder.stop()


RUNS: Mapping[str, Run] = {
    **{name: _pretrain(method={"name": name}) for name in METHODS},
    "pictures": _pretrain(pictures=True),
    "minutes": _pretrain(minutes=0.02, epochs=None),
    "fp32": _pretrain(precision="fp32"),
    "lars": _pretrain(optimizer={"name": "lars"}),
    "muon": _pretrain(optimizer={"name": "muon"}),
    "muon_in_batches": _muon_in_batches,
    "adamw": _pretrain(optimizer={"name": "adamw"}),
    "chunks": _pretrain(chunk_size=16),
    "mixed_sizes": _pretrain("mixed", image_size=48),
    "all_views": _pretrain("mixed", image_size=48, views=_ALL_VIEWS),
    "decoded_again": _decoded_again,
    "host_memory": _host_memory,
    "pinned_images": _pinned_images,
    "selective_kernel": _pretrain(
        backbone={"name": "resnet50", "width": 0.25, "selective_kernel": True, "stem": "imagenet"}, epochs=1
    ),
    "resume": _resume,
    "knn_eval": _evaluate(kind="knn_eval", baselines=["pixels", "random"], k=10, **_ON_GPU),
    "linear_eval": _evaluate(
        kind="linear_eval", epochs=2, label_fractions=[0.5, 1.0], draws=2, baselines=["pixels"], **_ON_GPU
    ),
    "linear_eval_augment": _evaluate(kind="linear_eval", epochs=2, augment=True, **_ON_GPU),
    "project": _evaluate(kind="project", **_ON_GPU),
    "export": _evaluate(kind="export"),
    "supervised": _supervised,
    "finetune": _finetune,
    "distill": _distill,
    "embedder": _embedder,
    "embed_requests": _embed_requests,
}
