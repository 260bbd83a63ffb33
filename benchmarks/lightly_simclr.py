"""lightly's SimCLR on a packed dataset, as in its documentation or tuned; the baseline of benchmarks/pretrain.py and of
the stage `lightly` of benchmarks/acceptance.

The network is from `ssl_core.models.backbones`, so that both sides train the same one, with torch's convolutions, as in
the networks that are trained with lightly; transform, loss, head and data loading are lightly's and torch's. `docs`
follows lightly's published SimCLR example: fp32, default loader options. `tuned` adds bf16 autocast where it is faster,
channels_last, persistent workers, temperature 0.2, Nesterov momentum, warm-up and cosine, and on a GPU pinned memory
and the kernels that a timing finds fastest.
"""

import argparse
import json
import math
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import ssl_core.models.torchvision_ops  # noqa: F401  (before lightly imports torchvision)

from lightly.loss import NTXentLoss  # isort: skip
from lightly.models.modules import SimCLRProjectionHead  # isort: skip
from lightly.transforms import SimCLRTransform  # isort: skip
from PIL import Image

from ssl_core.config import Backbone
from ssl_core.data.dataset import Dataset
from ssl_core.device import Device
from ssl_core.evaluation.knn import compute_top1
from ssl_core.models.backbones import build
from ssl_core.models.convolution import Conv

BACKBONE = {"name": "resnet10", "width": 0.5, "stem": "cifar_stride2"}


class Pictures(torch.utils.data.Dataset):
    """Decoded images in memory, passed to the transform as PIL images, like torchvision's CIFAR10."""

    def __init__(self, pixels: np.ndarray, transform: SimCLRTransform) -> None:
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> list[torch.Tensor]:
        return self.transform(Image.fromarray(self.pixels[i]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--arm", choices=["docs", "tuned"], required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm-up", type=float, default=0.0, help="seconds that are excluded from views/s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subset", type=int, default=10_000)
    parser.add_argument("--knn", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--backbone", type=json.loads, default=BACKBONE, help="as in a config")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--our-convolutions", action="store_true", help="Twoviews' instead of torch's")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(options.seed)
    print(json.dumps(train(options)))


def train(options: argparse.Namespace) -> dict[str, float]:
    tuned = options.arm == "tuned"
    device = torch.device(options.device)
    low = tuned and Device.here(options.device).gains_from_bf16
    torch.backends.cudnn.benchmark = tuned
    dataset = Dataset.open(options.data)
    train_ids = dataset.indices("train", options.subset, options.seed)
    pixels = np.load(options.data / "pixels.npy", mmap_mode="r")
    transform = SimCLRTransform(input_size=32, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0)
    loader = torch.utils.data.DataLoader(
        Pictures(np.ascontiguousarray(pixels[train_ids]), transform),
        batch_size=options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        persistent_workers=tuned and options.workers > 0,
        pin_memory=tuned and device.type == "cuda",
    )
    backbone = build(Backbone(**{"width": 1.0, "stem": "cifar", "zero_init_residual": False} | options.backbone))
    for module in backbone.modules():
        if type(module) is Conv and not options.our_convolutions:
            module.__class__ = torch.nn.Conv2d
    head = SimCLRProjectionHead(backbone.dim, backbone.dim, 128)
    model = torch.nn.Sequential(backbone, head).to(device)
    if tuned:
        model = model.to(memory_format=torch.channels_last)
    criterion = NTXentLoss(temperature=0.2 if tuned else 0.5)
    optimizer = torch.optim.SGD(
        model.parameters(),
        **({"lr": 0.12, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4} if tuned else {"lr": 0.06}),
    )
    started, counted_from, views = time.monotonic(), None, 0
    while time.monotonic() - started < options.seconds:
        for first, second in loader:
            elapsed = time.monotonic() - started
            if elapsed >= options.seconds:
                break
            if counted_from is None and elapsed >= options.warm_up:
                wait(device)
                counted_from = time.monotonic()
            if tuned:
                set_rate(optimizer, elapsed / options.seconds)
            first, second = (x.to(device, non_blocking=tuned) for x in (first, second))
            step(model, criterion, optimizer, first, second, tuned, low)
            views += 2 * options.batch if counted_from is not None else 0
    wait(device)
    result = {"views_per_second": views / (time.monotonic() - counted_from), "seconds": time.monotonic() - started}
    if options.knn:
        result["knn"] = knn(backbone, dataset, pixels, train_ids, low)
    return result


def step(model, criterion, optimizer, first, second, tuned: bool, low: bool) -> None:
    if tuned:
        first, second = (x.to(memory_format=torch.channels_last) for x in (first, second))
    with torch.autocast(first.device.type, dtype=torch.bfloat16, enabled=low):
        z0, z1 = model(first), model(second)
    loss = criterion(z0.float(), z1.float())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def wait(device: torch.device) -> None:
    """Wait for a GPU to finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def set_rate(optimizer: torch.optim.Optimizer, done: float, peak: float = 0.12, warmup: float = 0.05) -> None:
    """Set the learning rate: linear warm-up over a twentieth of the time, then cosine to 0, as in Twoviews."""
    rate = done / warmup if done < warmup else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = peak * max(rate, 1e-3)


@torch.inference_mode()
def knn(backbone, dataset: Dataset, pixels: np.ndarray, train_ids, low: bool) -> float:
    """Return the kNN accuracy (k 200, t 0.1) on the whole test split, with the training images as neighbours."""
    backbone.eval()
    device = next(backbone.parameters()).device
    mean, std = (torch.tensor(IMAGENET[i]).view(3, 1, 1) for i in (0, 1))

    def features(ids) -> torch.Tensor:
        parts = []
        for part in torch.as_tensor(ids).split(500):
            x = torch.from_numpy(np.ascontiguousarray(pixels[part.numpy()])).permute(0, 3, 1, 2).float() / 255
            x = ((x - mean) / std).contiguous(memory_format=torch.channels_last).to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
                parts.append(backbone(x).float().cpu())
        return torch.cat(parts)

    test_ids = dataset.indices("test")
    labels = torch.as_tensor(np.asarray(dataset.labels))
    train, test = (features(ids) for ids in (train_ids, test_ids))
    return compute_top1(train, labels[train_ids], test, labels[test_ids], len(dataset.classes), k=200, temperature=0.1)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std of SimCLRTransform

if __name__ == "__main__":
    main()
