"""Benchmark of few labels: fine-tuning and supervised training on the same labels, and a narrow distilled student.

    python -m benchmarks.few_labels PACKED [--epochs 30] [--subset 10000] [--seeds 3] [--out FOLDER]

PACKED is a packed dataset (`python -m worker.uploads.ingest cifar10.tar.xz --out PACKED --events`). SimCLR is
pretrained on the subset as in `benchmarks.methods`; with the same --out its model is reused. For each seed, the same
1 % and 10 % of the subset's labels train a network from random weights (`supervised`) and fine-tune SimCLR's, both with
their defaults, for the same number of steps. The student has a quarter of the width of its teacher, the network
fine-tuned with 10 %, and is distilled on the whole subset without labels. Accuracy is on the test split. Prints the
tables of benchmarks/methods.md; results that are in --out are not computed again.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import result
from ssl_core.data.dataset import Dataset

LENGTHS = {0.01: 200, 0.1: 60}  # epochs: 200 and about 900 steps
STUDENT_EPOCHS = 60
NEVER = {"every_epochs": 0}
HEAD = "| labels | supervised | fine-tuned | a student of a quarter of the width |\n|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--subset", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("methods"))
    options = parser.parse_args()
    common = {"subset": options.subset, "pictures": False, "evaluation": NEVER}
    result(options, "simclr", {"method": {"name": "simclr"}, "epochs": options.epochs, "seed": 0, **common})
    print(HEAD, flush=True)
    for share, epochs in LENGTHS.items():
        accuracies: dict[str, list[float]] = {"supervised": [], "finetune": [], "distill": []}
        for seed in range(options.seeds):
            label_rows = draw_rows(options, share, seed)
            fields = {"seed": seed, "epochs": epochs, "label_rows": label_rows, "pictures": False, "evaluation": NEVER}
            models = {"supervised": None, "finetune": options.out / "simclr" / "model"}
            for kind, model in models.items():
                accuracies[kind].append(accuracy(options, f"{kind}-{share}-{seed}", {"kind": kind, **fields}, model))
        if share == max(LENGTHS):
            student = {"kind": "distill", **common, "seed": 0, "epochs": STUDENT_EPOCHS, "backbone": {"width": 0.125}}
            teacher = options.out / f"finetune-{share}-0" / "model"
            accuracies["distill"].append(accuracy(options, "student", student, teacher))
        print(f"| {share:.0%} |", " | ".join(map(format_mean, accuracies.values())), "|", flush=True)


def draw_rows(options: argparse.Namespace, share: float, seed: int) -> list[int]:
    """Return the rows of the labelled images: the same number for each class, drawn from SimCLR's training images."""
    dataset = Dataset.open(options.data)
    pretraining = np.asarray(dataset.indices("train", options.subset, 0))
    generator, labels = np.random.default_rng(seed), np.asarray(dataset.labels)[pretraining]
    count = round(share * len(pretraining) / len(dataset.classes))
    drawn = [generator.permutation(pretraining[labels == label])[:count] for label in range(len(dataset.classes))]
    return sorted(np.concatenate(drawn).tolist())


def accuracy(options: argparse.Namespace, name: str, config: dict[str, Any], model: Path | None) -> float:
    return 100 * result(options, name, config, model)["top1"]


def format_mean(values: list[float]) -> str:
    """Return the mean and each value."""
    return f"{statistics.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})" if values else "–"


if __name__ == "__main__":
    main()
