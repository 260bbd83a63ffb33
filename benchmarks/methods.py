"""Benchmark of every method with its defaults for the same number of epochs, with baselines.

    python -m benchmarks.methods PACKED [--methods simclr byol …] [--epochs 30] [--subset 10000] [--out FOLDER]

PACKED is a packed dataset (`python -m worker.uploads.ingest cifar10.tar.xz --out PACKED --events`). Every run is an
`ssl_core run`, evaluated by kNN (k 200, temperature 0.1) and linear evaluation (`linear_eval`'s defaults, all labels of
the subset) on the test split. Baselines are raw pixels, a random network with the architecture of the first method's,
and `supervised`, which trains it on the same labelled images for the same number of epochs. Prints the table of
benchmarks/methods.md; a run whose result is in --out is not run again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.pretrain import start
from ssl_core.config.methods import METHODS

HEAD = "| method | minutes | std | RankMe | kNN | linear (95 %) |\n|---|---|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--subset", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("methods"))
    options = parser.parse_args()
    print(HEAD, flush=True)
    for place, name in enumerate(options.methods):
        for row in rows(options, name, baselines=place == 0):
            print(row, flush=True)
    print(supervised(options), flush=True)


def rows(options: argparse.Namespace, name: str, *, baselines: bool) -> list[str]:
    """Return the method's row, preceded with `baselines` by those of raw pixels and of a random network."""
    training = result(options, name, {"method": {"name": name}, **_length(options), "evaluation": {"every_epochs": 0}})
    model = options.out / name / "model"
    fields = {"subset": options.subset, "seed": options.seed, "baselines": ["pixels", "random"] if baselines else []}
    knn = result(options, f"{name}-knn", {"kind": "knn_eval", **fields}, model)
    linear = result(options, f"{name}-linear", {"kind": "linear_eval", **fields}, model)
    lines = []
    for near, line in zip(knn["results"], linear["results"], strict=True):
        low, high = line["top1_interval"]
        scores = f"{100 * near['top1']:.1f} | {100 * line['top1']:.1f} ({100 * low:.1f} – {100 * high:.1f}) |"
        if line["features"] == "model":
            lines.append(
                f"| {name} | {training['minutes']:.1f} | {training['std']:.2f} | {training['rankme']:.0f} | {scores}"
            )
        else:
            lines.append(f"| {line['features']} | – | – | – | {scores}")
    return [*lines[1:], lines[0]]


def supervised(options: argparse.Namespace) -> str:
    """Return the row of a network trained with labels from random weights."""
    summary = result(options, "supervised", {"kind": "supervised", **_length(options)})
    low, high = summary["top1_interval"]
    own = f"{100 * summary['top1']:.1f} ({100 * low:.1f} – {100 * high:.1f})"
    return f"| supervised, its own classifier | {summary['minutes']:.1f} | – | – | – | {own} |"


def result(options: argparse.Namespace, name: str, config: dict[str, Any], model: Path | None = None) -> dict[str, Any]:
    """Return the summary of the run, which is read from --out if it was run with that config and model."""
    path = options.out / name / "result.json"
    if not _is_fresh(path, config, model):
        path.parent.mkdir(parents=True, exist_ok=True)
        more = ("--model", str(model)) if model else ()
        with start(config, options.data, path.parent, *more) as process:
            events = [json.loads(line) for line in process.stdout or ()]
        if events[-1]["event"] != "result":
            raise SystemExit(f"{name}: {events[-1]}")
        path.write_text(json.dumps(events[-1]["summary"]))
    return json.loads(path.read_text())


def _is_fresh(path: Path, config: dict[str, Any], model: Path | None) -> bool:
    if not path.is_file() or json.loads(path.with_name("config.json").read_text()) != config:
        return False
    return model is None or (model / "model.json").stat().st_mtime < path.stat().st_mtime


def _length(options: argparse.Namespace) -> dict[str, Any]:
    return {"epochs": options.epochs, "subset": options.subset, "seed": options.seed, "pictures": False}


if __name__ == "__main__":
    main()
