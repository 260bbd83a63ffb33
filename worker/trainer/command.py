"""The command line of an attempt: program, data, and the checkpoint to resume from."""

import hashlib
import json
import sys
from pathlib import Path

from service.db.kinds import IMPORT, INDEX, INGEST
from service.leases import Claim
from service.settings import Settings
from service.storage import Storage
from ssl_core.config import Import, Reading
from ssl_core.errors import ModelMissing
from ssl_core.events import Log
from ssl_core.files import make_folder, write_atomic
from worker.trainer.event_writer import EventWriter

_MODEL_FILES = ("model.json", "weights.safetensors", "heads.safetensors")  # ssl_core.serialization imports torch
_CHUNK_BYTES = 16 * 2**20
_PYTHON = (sys.executable, "-P", "-m")  # -P: modules are not imported from the working directory


def output_folder(claim: Claim, storage: Storage) -> Path:
    """Return the folder that only this attempt writes."""
    if claim.kind == INGEST:
        assert claim.dataset_id is not None
        return storage.dataset_dir(claim.dataset_id, claim.attempt)
    if claim.kind == INDEX:
        return storage.index_dir(claim.config["index"], claim.attempt)
    return storage.attempt_dir(claim.job_id, claim.attempt)


def build(claim: Claim, storage: Storage, settings: Settings, events: EventWriter) -> list[str]:
    """Create the attempt's folder and return the trainer's command.

    Raises ModelMissing, OSError, ValueError and LeaseLost.
    """
    out = output_folder(claim, storage)
    make_folder(out)
    if claim.upload is not None:
        upload = storage.upload_path(claim.upload.tenant_id, claim.upload.sha256)
        reader = [*_PYTHON, *_READERS[claim.kind](claim), str(upload), "--out", str(out), "--events"]
        return [*reader, "--sha256", claim.upload.sha256]
    if claim.kind == INDEX:
        sources = _write_sources(claim, storage, out)
        return [*_PYTHON, "worker.indexes.build", str(sources), "--out", str(out), "--events"]
    if claim.dataset_path is None:
        raise ValueError("its dataset has no files")
    dataset = storage.absolute(claim.dataset_path)
    config = out / "config.json"
    write_atomic(config, json.dumps(claim.config, indent=2, allow_nan=False).encode())
    trainer = settings.trainer_command or [*_PYTHON, "ssl_core", "run"]
    command = [*trainer, str(config), "--data", str(dataset), "--out", str(out)]
    provenance = out / "provenance.json"
    write_atomic(provenance, json.dumps(claim.provenance, allow_nan=False).encode())
    command += ["--provenance", str(provenance)]
    if claim.model_path is not None:
        _check_model(claim.provenance["model"]["id"], storage.absolute(claim.model_path), dataset)
        command += ["--model", str(storage.absolute(claim.model_path))]
    if (checkpoint := _find_checkpoint(claim, storage, events)) is not None:
        command += ["--resume", str(checkpoint)]
    if claim.shards_of is not None:
        command += ["--requests"]
    return [*command, "--events"]


def _write_sources(claim: Claim, storage: Storage, out: Path) -> Path:
    """Write what the building of an index reads, for `worker.indexes.build`, and return the file."""
    files = {file.name: {"path": str(storage.absolute(file.path)), "sha256": file.sha256} for file in claim.embeddings}
    dataset = str(storage.absolute(claim.dataset_path)) if claim.dataset_path is not None else None
    written = write_atomic(out / "sources.json", json.dumps({"files": files, "dataset": dataset}).encode())
    return written.path


def _check_model(model_id: str, folder: Path, dataset: Path) -> None:
    """Raise ModelMissing when files of the model are missing, unless the dataset is too.

    Then the storage may be away for a minute: the trainer fails, and another attempt finds both.
    """
    missing = [name for name in _MODEL_FILES if not (folder / name).exists()]
    if missing and dataset.is_dir():
        raise ModelMissing(f"Files of the model {model_id} are missing from the storage: {', '.join(missing)}.")


def _ingest_arguments(claim: Claim) -> list[str]:
    fields = {name: claim.config[name] for name in Reading.model_fields if name in claim.config}
    return ["worker.uploads.ingest", "--reading", json.dumps(fields)]


def _import_arguments(claim: Claim) -> list[str]:
    config = {name: claim.config[name] for name in Import.model_fields}
    return [
        "worker.uploads.import_weights",
        "--config",
        json.dumps(config),
        "--provenance",
        json.dumps(claim.provenance),
    ]


_READERS = {INGEST: _ingest_arguments, IMPORT: _import_arguments}  # arguments of upload readers, by job kind


def _find_checkpoint(claim: Claim, storage: Storage, events: EventWriter) -> Path | None:
    """Return the newest checkpoint whose SHA-256 matches; drop and log those that are missing or damaged."""
    for candidate in claim.checkpoints:
        fault = _check_file(storage.absolute(candidate.path), candidate.sha256, events)
        if fault is None:
            return storage.absolute(candidate.path)
        message = f"The checkpoint of step {candidate.step} is {fault}; resuming from an earlier one or from the start."
        data = {"step": candidate.step, "path": candidate.path}
        events.drop_checkpoint(candidate.path, Log("warning", message, "checkpoint_damaged", data))
    return None


def _check_file(path: Path, sha256: str, events: EventWriter) -> str | None:
    """Return "missing", "damaged", or None for a good file. Renews the lease while it reads."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                events.flush()
    except FileNotFoundError:
        return "missing"
    return None if digest.hexdigest() == sha256 else "damaged"
