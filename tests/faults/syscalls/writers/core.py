"""Writers of ssl_core: checkpoints, saved models, artifacts, reports and exports, as a run writes them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import safetensors.torch
import torch

from ssl_core.config import Backbone, Export
from ssl_core.config.embedding import ShardRange, name_files
from ssl_core.data.dataset import Dataset
from ssl_core.embedding.shard_files import ShardFolder
from ssl_core.errors import BadModel
from ssl_core.events import Checkpoint, Event, Model
from ssl_core.export.formats import run_export
from ssl_core.files import write_artifact
from ssl_core.inputs import Inputs
from ssl_core.models import backbones
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP
from ssl_core.reports.files import write_reports
from ssl_core.run import catch_failures
from ssl_core.serialization import checkpoint, checkpoint_files, saved_model
from tests.faults.syscalls.writer import Writer, error_of
from tests.faults.syscalls.writers import dataset

JOB, ATTEMPT = "jobs/job_1", "jobs/job_1/a1"
_SHAPE = Backbone(name="resnet10", width=0.125, stem="cifar", weights="random", zero_init_residual=False)
_CLEAN = Preprocessing.of(8, [0.5, 0.5, 0.5], [0.2, 0.2, 0.2])


def as_run(events: Callable[[], Iterator[Event]]) -> dict[str, Any]:
    """Return the error with which a run of these events ends, or {}."""
    return error_of(list(catch_failures(events())))


def _attempt(folder: Path) -> Path:
    return folder / ATTEMPT


def _prepare_attempt(folder: Path) -> None:
    _attempt(folder).mkdir(parents=True)


# --- checkpoints -----------------------------------------------------------------------------------------------------

_RECORDED = (1, 2)  # steps of the checkpoints that the database names


def _state(step: int) -> dict[str, Any]:
    return {"weights": torch.arange(2000.0) + step, "plain": {"lr": 0.1 * step}}


def _prepare_checkpoints(folder: Path) -> None:
    for step in _RECORDED:
        checkpoint.save(_attempt(folder), step, _state(step))


def _write_checkpoint(folder: Path) -> dict[str, Any]:
    def events() -> Iterator[Event]:
        if (written := checkpoint.save_if_room(_attempt(folder), 3, _state(3))) is None:
            yield checkpoint.warn_storage_full(3)
        else:
            yield Checkpoint(3, 1.0, written.path.name, written.sha256, written.size_bytes)
            checkpoint_files.prune(_attempt(folder), keep=2, up_to=3)

    return as_run(events)


def _look_at_checkpoints(folder: Path) -> str:
    """The newest checkpoint that the database names must load at any time; so must every other that has a name."""
    attempt = folder / ATTEMPT
    steps = [int(path.stem.partition("-")[2]) for path in sorted(attempt.glob("checkpoint-*.pt"))]
    for step in {*steps, _RECORDED[-1]}:
        loaded = checkpoint.load(attempt / checkpoint_files.file_name(step))
        assert loaded["step"] == step
        assert torch.equal(loaded["weights"], _state(step)["weights"])
    newest = checkpoint_files.find_newest(attempt)
    assert newest is not None
    return "new" if newest.name == checkpoint_files.file_name(3) else "old"


# --- saved models ----------------------------------------------------------------------------------------------------


def _encoder(seed: int) -> Encoder:
    torch.manual_seed(seed)
    backbone = backbones.build(_SHAPE)
    return Encoder(backbone, MLP((backbone.dim, 8, 8)), _CLEAN)


def _save_model(folder: Path, seed: int) -> Iterator[Event]:
    encoder = _encoder(seed)
    assert encoder.projector is not None
    about = {"method": "simclr", "config": {}, "metrics": {"seed": seed}}
    weights, card = saved_model.save(
        _attempt(folder) / "model", encoder, _SHAPE, {"projector": encoder.projector}, about
    )
    yield Model("model", weights.sha256, weights.size_bytes, card["dim"], card)


def _write_model(folder: Path) -> dict[str, Any]:
    return as_run(lambda: _save_model(folder, seed=2))


def _look_at_model(folder: Path) -> str:
    model = folder / ATTEMPT / "model"
    try:
        card = saved_model.load_card(model)
    except BadModel:
        assert not (model / saved_model.CARD).exists()
        return "absent"
    encoder, expected = saved_model.load(model), _encoder(card["metrics"]["seed"])
    for name, value in expected.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)
    return "new" if card["metrics"]["seed"] == 2 else "old"


def _prepare_model(folder: Path) -> None:
    list(_save_model(folder, seed=1))


# --- artifacts and reports -------------------------------------------------------------------------------------------

_OLD, _NEW = b"<svg>old</svg>" * 500, b"<svg>new</svg>" * 700


def _prepare_artifact(folder: Path) -> None:
    _prepare_attempt(folder)
    (_attempt(folder) / "curves.svg").write_bytes(_OLD)


def _write_artifact(folder: Path) -> dict[str, Any]:
    def events() -> Iterator[Event]:
        yield write_artifact(_attempt(folder), "curves.svg", _NEW)

    return as_run(events)


def _write_report(folder: Path) -> dict[str, Any]:
    return as_run(lambda: write_reports(_attempt(folder), lambda: iter([("curves.svg", _NEW)])))


def _look_at_artifact(folder: Path) -> str:
    path = folder / ATTEMPT / "curves.svg"
    if not path.exists():
        return "absent"
    return {_OLD: "old", _NEW: "new"}[path.read_bytes()]


# --- exports ---------------------------------------------------------------------------------------------------------


def _prepare_export(folder: Path) -> None:
    list(_save_model(folder, seed=1))
    dataset.pack_old(folder / dataset.DATASET)
    (folder / "jobs/job_2/a1").mkdir(parents=True)


def _write_export(folder: Path) -> dict[str, Any]:
    config = Export(formats=("torchvision",), images=2)
    inputs = Inputs(folder / dataset.DATASET, folder / ATTEMPT / "model")
    return as_run(lambda: run_export(config, inputs, folder / "jobs/job_2/a1"))


def _look_at_export(folder: Path) -> str:
    path = folder / "jobs/job_2/a1/torchvision.safetensors"
    if not path.exists():
        return "absent"
    loaded = safetensors.torch.load_file(path)
    assert loaded.keys() == _encoder(1).backbone.body.state_dict().keys()
    return "new"


# --- shards of embeddings --------------------------------------------------------------------------------------------

_SHARD = ShardRange(0, 0, 4)
_SHARD_FILES = tuple(f"{ATTEMPT}/{name}" for name in name_files(0))


def _shards(folder: Path) -> ShardFolder:
    packed = Dataset.open(folder / dataset.DATASET)
    return ShardFolder(_attempt(folder), packed, np.arange(4) % len(packed), 8, "float32", {"model": "m"})


def _prepare_shard(folder: Path) -> None:
    _prepare_attempt(folder)
    dataset.pack_old(folder / dataset.DATASET)


def _write_shard(folder: Path) -> dict[str, Any]:
    def events() -> Iterator[Event]:
        yield _shards(folder).write(_SHARD, iter(np.arange(32, dtype=np.float32).reshape(2, 2, 8)))

    return as_run(events)


def _look_at_shard(folder: Path) -> str:
    """A shard is there when both files are; one of them alone is written again."""
    if _shards(folder).find(_SHARD) is None:
        return "absent"
    npy, parquet = (folder / path for path in _SHARD_FILES)
    expected = np.arange(32, dtype=np.float32).reshape(4, 8)
    assert np.array_equal(np.load(npy), expected)
    assert np.array_equal(np.array(pq.read_table(parquet)["vector"].to_pylist()), expected)
    return "new"


WRITERS = (
    Writer(
        "checkpoint", "ssl_core/serialization/checkpoint.py", _write_checkpoint, _look_at_checkpoints,
        _prepare_checkpoints, ("old",), (f"{ATTEMPT}/checkpoint-000000002.pt",), (JOB,),
    ),
    Writer(
        "model", "ssl_core/serialization/saved_model.py", _write_model, _look_at_model,
        live=(f"{ATTEMPT}/model",), known=(JOB,),
    ),
    Writer(
        "model_over_another", "ssl_core/serialization/saved_model.py", _write_model, _look_at_model,
        _prepare_model, ("old", "absent"), (f"{ATTEMPT}/model",), (JOB,),
    ),
    Writer(
        "artifact", "ssl_core/files.py", _write_artifact, _look_at_artifact, _prepare_attempt,
        live=(f"{ATTEMPT}/curves.svg",), known=(JOB,),
    ),
    Writer(
        "report_over_another", "ssl_core/reports/files.py", _write_report, _look_at_artifact,
        _prepare_artifact, ("old",), (f"{ATTEMPT}/curves.svg",), (JOB,),
    ),
    Writer(
        "shard", "ssl_core/embedding/shard_files.py", _write_shard, _look_at_shard, _prepare_shard,
        live=(*_SHARD_FILES, dataset.DATASET), known=(JOB,),
    ),
    Writer(
        "export", "ssl_core/export/formats.py", _write_export, _look_at_export, _prepare_export,
        live=(f"{ATTEMPT}/model", dataset.DATASET, "jobs/job_2/a1/torchvision.safetensors"), known=(JOB, "jobs/job_2"),
    ),
)  # fmt: skip
