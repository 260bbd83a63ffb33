"""A calm run: `ssl_core` on tiny pictures with nothing in its way, to compare disturbed runs with."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ssl_core import events as ev
from tests.faults.fleet import ROOT
from tests.faults.trainer import REAL_SEED

PICTURES = 64
CONFIG = {
    "method": {"name": "simclr"},
    "pictures": False,
    "backbone": {"name": "resnet10", "width": 0.125, "stem": "cifar_stride2"},
    "image_size": 8,
    "phases": [{"until": 1.0, "image_size": 8}],
    "precision": "fp32",
    "device": "cpu",
    "epochs": 80,
    "batch_size": 32,
    "seed": REAL_SEED,
    "evaluation": {"every_epochs": 20, "max_images": 32},
    "checkpoints": {"every_steps": 8},
}
CLOCKED = ("train/images_per_second", "train/data_wait")  # series whose values depend on the machine's mood


@dataclass(frozen=True)
class Calm:
    """What the undisturbed run left: the weights' SHA-256, and each series as (step, value) pairs.

    `pictures` are the files of its packed dataset.
    """

    sha256: str
    series: dict[str, list[tuple[int, float | None]]]
    pictures: dict[str, bytes]


@cache
def undisturbed() -> Calm:
    """Pack the pictures, train to the end, and return what came of it; done once, for it is always the same."""
    with tempfile.TemporaryDirectory(prefix="twoviews-calm-") as folder:
        data = Path(folder, "data")
        _pack_pictures(data)
        return _run(data, Path(folder, "out"))


def _pack_pictures(folder: Path) -> None:
    """Make the packed dataset. In a process of its own, so that this one needs no torch."""
    code = (
        "import sys; from pathlib import Path; from ssl_core.data.pack import Item, pack; from tests import pictures;"
        f"items = [Item(f'{{i % 2}}/{{i}}.png', pictures.png(i, 8, 8)) for i in range({PICTURES})];"
        "pack(items, Path(sys.argv[1]))"
    )
    _python("-c", code, str(folder))


def _run(data: Path, out: Path) -> Calm:
    out.mkdir()
    (out / "config.json").write_text(json.dumps(CONFIG))
    lines = _python(
        "-m", "ssl_core", "run", str(out / "config.json"), "--data", str(data), "--out", str(out), "--events"
    )
    series: dict[str, list[tuple[int, float | None]]] = {}
    sha256 = ""
    for event in map(ev.from_line, lines.splitlines()):
        if isinstance(event, ev.Metrics):
            for name, value in event.values.items():
                series.setdefault(name, []).append((event.step, value))
        elif isinstance(event, ev.Model):
            sha256 = event.sha256
    return Calm(sha256, series, {path.name: path.read_bytes() for path in data.iterdir()})


def _python(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
