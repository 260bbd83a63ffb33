"""Few labels: fine-tuning beside supervised training on the same ones, and a narrow student beside its teacher.

    python -m benchmarks.few_labels PACKED [--epochs 30] [--subset 10000] [--seeds 3] [--out FOLDER]

PACKED is a packed dataset (`python -m worker.uploads.ingest cifar10.tar.xz --out PACKED --events`). SimCLR learns from the
subset without labels as in `benchmarks.methods`, whose --out may be given and whose model is then taken. For each seed
the same 1 % and 10 % of the subset's labels train a network from random weights (`supervised`) and fine-tune SimCLR's,
by the defaults of both, for the same number of steps. The student has a quarter of the width of its teacher, the
network fine-tuned with 10 %, and learns from the teacher's answers to the whole subset, without a label. Accuracy on
the test split. Prints what benchmarks/methods.md has; what lies in --out already is not run again.
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
        told: dict[str, list[float]] = {"supervised": [], "finetune": [], "distill": []}
        for seed in range(options.seeds):
            told_rows = rows(options, share, seed)
            fields = {"seed": seed, "epochs": epochs, "label_rows": told_rows, "pictures": False, "evaluation": NEVER}
            models = {"supervised": None, "finetune": options.out / "simclr" / "model"}
            for kind, model in models.items():
                told[kind].append(accuracy(options, f"{kind}-{share}-{seed}", {"kind": kind, **fields}, model))
        if share == max(LENGTHS):
            student = {"kind": "distill", **common, "seed": 0, "epochs": STUDENT_EPOCHS, "backbone": {"width": 0.125}}
            told["distill"].append(accuracy(options, "student", student, options.out / f"finetune-{share}-0" / "model"))
        print(f"| {share:.0%} |", " | ".join(map(shown, told.values())), "|", flush=True)


def rows(options: argparse.Namespace, share: float, seed: int) -> list[int]:
    """A draw of the images whose labels are told: evenly from the classes, of the very ones that SimCLR saw."""
    dataset = Dataset.open(options.data)
    seen = np.asarray(dataset.indices("train", options.subset, 0))
    generator, labels = np.random.default_rng(seed), np.asarray(dataset.labels)[seen]
    count = round(share * len(seen) / len(dataset.classes))
    drawn = [generator.permutation(seen[labels == label])[:count] for label in range(len(dataset.classes))]
    return sorted(np.concatenate(drawn).tolist())


def accuracy(options: argparse.Namespace, name: str, config: dict[str, Any], model: Path | None) -> float:
    return 100 * result(options, name, config, model)["top1"]


def shown(values: list[float]) -> str:
    """The mean, and each."""
    return f"{statistics.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})" if values else "–"


if __name__ == "__main__":
    main()
