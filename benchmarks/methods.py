"""Every method for the same number of epochs by its defaults, judged beside raw pixels and networks of the same shape.

    python -m benchmarks.methods PACKED [--methods simclr byol …] [--epochs 30] [--subset 10000] [--out FOLDER]

PACKED is a packed dataset (`python -m worker.uploads.ingest cifar10.tar.xz --out PACKED --events`). Every run is the product's
own process. kNN (k 200, temperature 0.1) and linear (`linear_eval`'s defaults, all labels of the subset) on the test
split. The random network has the shape of the first method's; `supervised` trains it from the same images' labels for
as many epochs. Prints what the table of benchmarks/methods.md is made of; a run whose result lies in --out already is
not run again.
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
    """The method's row, and before the first one's those of raw pixels and of a random network."""
    training = result(options, name, {"method": {"name": name}, **_length(options), "evaluation": {"every_epochs": 0}})
    model = options.out / name / "model"
    fields = {"subset": options.subset, "seed": options.seed, "baselines": ["pixels", "random"] if baselines else []}
    knn = result(options, f"{name}-knn", {"kind": "knn_eval", **fields}, model)
    linear = result(options, f"{name}-linear", {"kind": "linear_eval", **fields}, model)
    told = []
    for near, line in zip(knn["results"], linear["results"], strict=True):
        low, high = line["top1_interval"]
        judged = f"{100 * near['top1']:.1f} | {100 * line['top1']:.1f} ({100 * low:.1f} – {100 * high:.1f}) |"
        if line["features"] == "model":
            told.append(
                f"| {name} | {training['minutes']:.1f} | {training['std']:.2f} | {training['rankme']:.0f} | {judged}"
            )
        else:
            told.append(f"| {line['features']} | – | – | – | {judged}")
    return [*told[1:], told[0]]


def supervised(options: argparse.Namespace) -> str:
    """The row of a network trained from the labels."""
    summary = result(options, "supervised", {"kind": "supervised", **_length(options)})
    low, high = summary["top1_interval"]
    own = f"{100 * summary['top1']:.1f} ({100 * low:.1f} – {100 * high:.1f})"
    return f"| supervised, its own classifier | {summary['minutes']:.1f} | – | – | – | {own} |"


def result(options: argparse.Namespace, name: str, config: dict[str, Any], model: Path | None = None) -> dict[str, Any]:
    """The summary of the run, which is run unless it was, with that config and model."""
    kept = options.out / name / "result.json"
    if not _is_fresh(kept, config, model):
        kept.parent.mkdir(parents=True, exist_ok=True)
        more = ("--model", str(model)) if model else ()
        with start(config, options.data, kept.parent, *more) as process:
            events = [json.loads(line) for line in process.stdout or ()]
        if events[-1]["event"] != "result":
            raise SystemExit(f"{name}: {events[-1]}")
        kept.write_text(json.dumps(events[-1]["summary"]))
    return json.loads(kept.read_text())


def _is_fresh(kept: Path, config: dict[str, Any], model: Path | None) -> bool:
    if not kept.is_file() or json.loads(kept.with_name("config.json").read_text()) != config:
        return False
    return model is None or (model / "model.json").stat().st_mtime < kept.stat().st_mtime


def _length(options: argparse.Namespace) -> dict[str, Any]:
    return {"epochs": options.epochs, "subset": options.subset, "seed": options.seed, "pictures": False}


if __name__ == "__main__":
    main()
