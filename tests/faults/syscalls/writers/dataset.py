"""Writers of datasets: ingestion of an upload in the worker, and packing over another dataset."""

import io
import zipfile
from pathlib import Path
from typing import Any

from ssl_core.config import Reading
from ssl_core.data.dataset import Dataset
from ssl_core.data.items import Item
from ssl_core.data.pack import pack
from tests import pictures
from tests.faults.syscalls.writer import Writer, error_of
from worker.uploads.ingest import ingest
from worker.uploads.limits import Limits

DATASET = "datasets/ds_1/a1"
_UPLOAD = "uploads/ten_1/" + "ab" * 32
LIMITS = Limits(2**30, 200, 1000, 2**20, 10**6)
_OLD, _NEW = (1, 2, 3), (4, 5, 6, 7)  # seeds of the pictures


def _names(seeds: tuple[int, ...]) -> list[str]:
    return [f"{'cat' if seed % 2 else 'dog'}/{seed}.png" for seed in seeds]


def pack_old(folder: Path) -> None:
    pack((Item(name, pictures.png(seed)) for name, seed in zip(_names(_OLD), _OLD, strict=True)), folder)


def _prepare_upload(folder: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, seed in zip(_names(_NEW), _NEW, strict=True):
            archive.writestr(name, pictures.png(seed))
    path = folder / _UPLOAD
    path.parent.mkdir(parents=True)
    path.write_bytes(target.getvalue())


def _prepare_both(folder: Path) -> None:
    _prepare_upload(folder)
    pack_old(folder / DATASET)


def _write(folder: Path) -> dict[str, Any]:
    return error_of(list(ingest(folder / _UPLOAD, folder / DATASET, Reading(), LIMITS)))


def _look(folder: Path) -> str:
    """Open the dataset and read every image of it, both as it was sent and as pixels, by their checksums."""
    if not (folder / DATASET / "dataset.json").exists():
        return "absent"
    found = Dataset.open(folder / DATASET)
    seeds = {3: _OLD, 4: _NEW}[len(found)]
    assert found.pixels is not None
    order = sorted(seeds, key=lambda seed: (("cat", "dog").index("cat" if seed % 2 else "dog"), seed))
    for row, seed in enumerate(order):
        assert (found.read_image(row) == pictures.pixels(seed)).all()
        assert bytes(found._encoded.read(row)) == pictures.png(seed)
    return "new" if seeds == _NEW else "old"


WRITERS = (
    Writer(
        "dataset", "ssl_core/data/pack.py", _write, _look, _prepare_upload,
        live=(DATASET, _UPLOAD), known=("datasets/ds_1", "uploads/ten_1"),
    ),
    Writer(
        "dataset_over_another", "ssl_core/data/pack.py", _write, _look, _prepare_both, ("old", "absent"),
        (DATASET, _UPLOAD), ("datasets/ds_1", "uploads/ten_1"),
    ),
)  # fmt: skip
