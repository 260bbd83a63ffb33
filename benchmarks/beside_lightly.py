"""Comparison of SimCLR and SimSiam with lightly's modules in the same setting: accuracy over several seeds.

    python -m benchmarks.beside_lightly PACKED [--epochs 15] [--seeds 3] [--subset 10000] [--out FOLDER]

PACKED is a packed dataset (`python -m worker.uploads.ingest cifar10.tar.xz --out PACKED --events`). Both sides have the
same network (ResNet-10, width 0.5, stem stride 2), images, epochs, batch (256), SGD with its learning rate, momentum,
weight decay on all parameters, warm-up and cosine, constant learning rate of SimSiam's predictor, bf16 where it is
faster, SimCLR's temperature, depths and widths of the heads (three layers in SimSiam's projector, as in lightly; the
default of Twoviews is the paper's two for CIFAR), and distributions of the views. lightly's side has its transform,
loss and heads, and the training loop of its examples, with a forward pass for each of SimCLR's views; Twoviews' side is
`ssl_core run`, with both views in one batch. Both are evaluated by `knn_eval` (k 200, temperature 0.1) and
`linear_eval` on the whole test split. Results that are in --out are not computed again.
"""

import argparse
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ssl_core.models.torchvision_ops  # noqa: F401  (before lightly imports torchvision)

from lightly.loss import NegativeCosineSimilarity, NTXentLoss  # isort: skip
from lightly.models.modules import SimCLRProjectionHead, SimSiamPredictionHead, SimSiamProjectionHead  # isort: skip
from lightly.transforms import SimCLRTransform, SimSiamTransform  # isort: skip

from benchmarks.lightly_simclr import IMAGENET, WORKERS, Pictures
from benchmarks.methods import result
from ssl_core.config import Backbone, Import, Schedule
from ssl_core.data.dataset import Dataset
from ssl_core.device import Device
from ssl_core.models.backbones import build
from ssl_core.optim.schedule import compute_lr_factor
from ssl_core.pretrained.weights import import_weights

BATCH = 256
NETWORK = {"name": "resnet10", "width": 0.5, "stem": "cifar_stride2", "zero_init_residual": False}
RATES = {"simclr": 0.12, "simsiam": 0.06}
SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
TEMPERATURE = 0.2
WIDE = 1024  # SimSiam's head: four times the network's 256 features
METHODS: dict[str, dict[str, Any]] = {
    "simclr": {"temperature": TEMPERATURE},
    "simsiam": {"projector": [WIDE] * 3, "predictor_hidden": WIDE // 4},
}
CIFAR: dict[str, Any] = {"input_size": 32, "min_scale": 0.2, "gaussian_blur": 0.0}
TRANSFORMS = {
    "simclr": SimCLRTransform(**CIFAR, cj_strength=0.5),
    "simsiam": SimSiamTransform(**CIFAR),  # 0.4, 0.4, 0.4 and 0.1: the same jitter
}
HEAD = "| method | library | kNN | linear |\n|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--subset", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("beside-lightly"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(HEAD, flush=True)
    for name in RATES:
        for library, side, train in (("Twoviews", "ours", train_twoviews), ("lightly", "lightly", train_lightly)):
            accuracies = []
            for seed in range(options.seeds):
                accuracies.append(evaluate(options, f"{side}-{name}-{seed}", train(options, name, seed), seed))
            means = " | ".join(map(format_mean, zip(*accuracies, strict=True)))
            print(f"| {name} | {library} | {means} |", flush=True)


def format_mean(values: tuple[float, ...]) -> str:
    """Return the mean, its standard error, and each value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.1f} ± {error:.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def evaluate(options: argparse.Namespace, name: str, model: Path, seed: int) -> tuple[float, float]:
    """Return kNN and linear accuracy in percent."""
    kinds = ("knn_eval", "linear_eval")
    configs = ({"kind": kind, "subset": options.subset, "seed": seed} for kind in kinds)
    knn, linear = (result(options, f"{name}-{config['kind']}", config, model) for config in configs)
    return 100 * knn["results"][0]["top1"], 100 * linear["results"][0]["top1"]


def train_twoviews(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Return the folder of the model that `ssl_core run` trains."""
    config = {
        "method": {"name": name, **METHODS[name]},
        "backbone": NETWORK,
        "phases": [{"until": 1, "image_size": 32}],
        "batch_size": BATCH,
        "optimizer": {"name": "sgd", "lr": RATES[name], "decay_norm_and_bias": True} | SGD,
        "epochs": options.epochs,
        "subset": options.subset,
        "seed": seed,
        "evaluation": {"every_epochs": 0},
        "normalisation": "imagenet",
        "pictures": False,
    }
    result(options, f"ours-{name}-{seed}", config)
    return options.out / f"ours-{name}-{seed}" / "model"


def train_lightly(options: argparse.Namespace, name: str, seed: int) -> Path:
    """Return the folder of the model that lightly's modules train, imported by `import_weights`."""
    folder = options.out / f"lightly-{name}-{seed}"
    if not (folder / "model").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        trained = train(options, name, seed).state_dict()
        torch.save({f"backbone.{key}": value.contiguous() for key, value in trained.items()}, folder / "weights.pt")
        mean, std = IMAGENET
        asked = Import(stem="cifar_stride2", image_size=32, mean=mean, std=std)
        import_weights(folder / "weights.pt", folder / "model", asked)
    return folder / "model"


def train(options: argparse.Namespace, name: str, seed: int) -> nn.Module:
    """Return the body of the trained backbone."""
    torch.manual_seed(seed)
    dataset, schedule = Dataset.open(options.data), Schedule(warmup_epochs=options.epochs / 20)
    rows = dataset.indices("train", options.subset, seed)
    pixels = np.load(options.data / "pixels.npy", mmap_mode="r")
    pictures = Pictures(np.ascontiguousarray(pixels[rows]), TRANSFORMS[name])
    backbone = build(Backbone(**NETWORK, selective_kernel=False, layout="torchvision"))
    model = (LightlySimCLR if name == "simclr" else LightlySimSiam)(backbone).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([{"params": model.scheduled()}, {"params": model.constant()}], lr=RATES[name], **SGD)
    loader = torch.utils.data.DataLoader(
        pictures, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )
    for epoch in range(options.epochs):
        for step, views in enumerate(loader, epoch * len(loader)):
            optimizer.param_groups[0]["lr"] = RATES[name] * compute_lr_factor(
                schedule, step, options.epochs * len(loader), len(loader)
            )
            model(*(view.to(memory_format=torch.channels_last) for view in views)).backward()
            optimizer.step()
            optimizer.zero_grad()
    return backbone.body


class LightlySimCLR(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, SimCLRProjectionHead(backbone.dim, backbone.dim, 128)
        self.loss, self.low = NTXentLoss(TEMPERATURE), Device.here().gains_from_bf16

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            z = [self.head(self.backbone(view)) for view in (first, second)]
        return self.loss(*(part.float() for part in z))

    def scheduled(self) -> list[Tensor]:
        return list(self.parameters())

    def constant(self) -> list[Tensor]:
        return []


class LightlySimSiam(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = SimSiamProjectionHead(backbone.dim, WIDE, WIDE)
        self.predictor = SimSiamPredictionHead(WIDE, WIDE // 4, WIDE)
        self.loss, self.low = NegativeCosineSimilarity(), Device.here().gains_from_bf16

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            z = [self.head(self.backbone(view)) for view in (first, second)]
            p = [self.predictor(part) for part in z]
        one, other = (self.loss(p[i].float(), z[1 - i].detach().float()) for i in (0, 1))
        return 0.5 * (one + other)

    def scheduled(self) -> list[Tensor]:
        return [*self.backbone.parameters(), *self.head.parameters()]

    def constant(self) -> list[Tensor]:
        return list(self.predictor.parameters())


if __name__ == "__main__":
    main()
