"""A baseline run: `ssl_core` on tiny images without faults, to compare runs with faults to."""

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ssl_core import events as ev
from tests.faults.fleet import python_output
from tests.faults.trainer import REAL_SEED

IMAGES = 64
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
TIMING_SERIES = ("train/images_per_second", "train/data_wait")  # series whose values depend on the machine's load


@dataclass(frozen=True)
class BaselineRun:
    """The weights' SHA-256, each series as (step, value) pairs, and the files of the packed dataset."""

    sha256: str
    series: dict[str, list[tuple[int, float | None]]]
    dataset_files: dict[str, bytes]


@cache
def run_baseline() -> BaselineRun:
    """Pack the images, train to the end, and return the results; cached, for the run is deterministic."""
    with tempfile.TemporaryDirectory(prefix="twoviews-baseline-") as folder:
        data = Path(folder, "data")
        _pack_images(data)
        return _train(data, Path(folder, "out"))


def _pack_images(folder: Path) -> None:
    """Write the packed dataset in a child process, so that this one does not load torch."""
    code = (
        "import sys; from pathlib import Path; from ssl_core.data.items import Item;"
        "from ssl_core.data.pack import pack; from tests import pictures;"
        f"items = [Item(f'{{i % 2}}/{{i}}.png', pictures.png(i, 8, 8)) for i in range({IMAGES})];"
        "pack(items, Path(sys.argv[1]))"
    )
    python_output("-c", code, str(folder))


def _train(data: Path, out: Path) -> BaselineRun:
    out.mkdir()
    (out / "config.json").write_text(json.dumps(CONFIG))
    lines = python_output(
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
    return BaselineRun(sha256, series, {path.name: path.read_bytes() for path in data.iterdir()})
