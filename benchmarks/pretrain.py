"""Benchmark of CPU pretraining against lightly: views per second, and kNN accuracy after equal time.

    python -m benchmarks.pretrain speed PACKED      # three seeds, the arms in turn, then ratios of medians
    python -m benchmarks.pretrain accuracy PACKED   # five minutes of Twoviews, and the same time of lightly;
                                                    # 10,000 images, kNN on the whole test split

PACKED is a packed dataset (`python -m worker.uploads.ingest cifar10.tar.xz --out PACKED --events`). Network (ResNet-10,
width 0.5, stem stride 2), batch (256) and images are the same on both sides. In `speed`, so are the size of the views
and the optimizer, SGD; one more arm has the default instead, Muon. Twoviews' side is `ssl_core run` with metrics and
checkpoints; lightly's arms are benchmarks/lightly_simclr.py, one more of which has Twoviews' convolutions.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OURS = {"twoviews": "sgd", "twoviews, Muon": "muon"}  # optimizer of each arm; lightly's arms have SGD
FASTER = "lightly tuned, our convolutions"
ARMS = ("lightly docs", "lightly tuned", FASTER, *OURS)
NETWORK = {"name": "resnet10", "width": 0.5, "stem": "cifar_stride2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "accuracy"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30, help="of each speed measurement")
    parser.add_argument("--minutes", type=float, default=5, help="of each accuracy run")
    options = parser.parse_args()
    {"speed": speed, "accuracy": accuracy}[options.what](options)


def speed(options: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in range(options.seeds):
        for arm in ARMS:
            rate = our_speed(options, arm, seed) if arm in OURS else lightly(options, arm, seed)["views_per_second"]
            rates[arm].append(rate)
            print(f"seed {seed}  {arm:31} {rate:8.0f} views/s", flush=True)
    ours = statistics.median(rates["twoviews"])
    table = Table("arm", "views/s (median)", "min – max", "speedup of twoviews", title="Pretraining on this CPU")
    for arm, speeds in rates.items():
        middle = statistics.median(speeds)
        table.add_row(arm, f"{middle:,.0f}", f"{min(speeds):,.0f} – {max(speeds):,.0f}", f"{ours / middle:.2f}")
    Console().print(table)


def accuracy(options: argparse.Namespace) -> None:
    minutes, knn = our_accuracy(options)
    theirs = lightly(options, "lightly tuned", 0, seconds=60 * minutes, knn=True)
    table = Table("arm", "minutes", "kNN (k 200, t 0.1)", title="10,000 CIFAR-10 images, equal time")
    table.add_row("twoviews", f"{minutes:.2f}", f"{100 * knn:.1f}")
    table.add_row("lightly tuned", f"{theirs['seconds'] / 60:.2f}", f"{100 * theirs['knn']:.1f}")
    Console().print(table)


def lightly(
    options: argparse.Namespace, arm: str, seed: int, *, seconds: float | None = None, knn: bool = False
) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.lightly_simclr",
        str(options.data),
        "--arm",
        "docs" if arm == "lightly docs" else "tuned",
    ]
    command += ["--our-convolutions"] if arm == FASTER else []
    command += ["--seed", str(seed), "--seconds", str(seconds or options.seconds)]
    command += ["--knn"] if knn else ["--warm-up", str(options.seconds / 3)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def our_speed(options: argparse.Namespace, arm: str, seed: int) -> float:
    """Return views per second of `ssl_core run`, over the last two thirds of --seconds."""
    config = {
        "method": {"name": "simclr"},
        "backbone": NETWORK,
        "phases": [{"until": 1, "image_size": 32}],
        "subset": 10_000,
        "seed": seed,
        "epochs": 10_000,
        "optimizer": {"name": OURS[arm]},
        "evaluation": {"every_epochs": 0},
    }
    points: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as out, start(config, options.data, Path(out)) as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "metrics":
                points.append((event["time"], event["step"]))
            counted = [point for point in points if point[0] - points[0][0] >= options.seconds / 3]
            if len(counted) > 1 and points[-1][0] - points[0][0] >= options.seconds:
                process.send_signal(signal.SIGKILL)
                break
    return 2 * 256 * (counted[-1][1] - counted[0][1]) / (counted[-1][0] - counted[0][0])


def our_accuracy(options: argparse.Namespace) -> tuple[float, float]:
    """Return minutes and kNN accuracy of the default config on the same network, with its default phases."""
    config = {
        "method": {"name": "simclr"},
        "backbone": NETWORK,
        "subset": 10_000,
        "minutes": options.minutes,
        "evaluation": {"every_epochs": 0},
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        with start(config, options.data, out / "train") as process:
            events = [json.loads(line) for line in process.stdout or ()]
        result = next(event["summary"] for event in events if event["event"] == "result")
        model = next(event["path"] for event in events if event["event"] == "model")
        evaluation = {"kind": "knn_eval", "subset": 10_000}
        with start(evaluation, options.data, out / "knn", "--model", str(out / "train" / model)) as process:
            events = [json.loads(line) for line in process.stdout or ()]
        return result["minutes"], next(event["summary"] for event in events if event["event"] == "result")["top1"]


def start(config: dict[str, Any], data: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    path = out / "config.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "ssl_core", "run", str(path), "--data", str(data), "--out", str(out), "--events"]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main()
