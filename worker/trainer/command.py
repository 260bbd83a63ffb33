"""The command line of an attempt: which program, on which data, going on from which checkpoint."""

import hashlib
import json
import sys
from pathlib import Path

from service.kinds import IMPORT, INGEST
from service.leases import Claim
from service.settings import Settings
from service.storage import Storage
from ssl_core.config import Import
from ssl_core.events import Log
from worker.trainer.ledger import Ledger

_CHUNK_BYTES = 16 * 2**20


def folder(claim: Claim, storage: Storage) -> Path:
    """Return the folder that this attempt writes, and nobody else."""
    if claim.kind == INGEST:
        assert claim.dataset_id is not None
        return storage.dataset_dir(claim.dataset_id, claim.attempt)
    return storage.attempt_dir(claim.job_id, claim.attempt)


def build(claim: Claim, storage: Storage, settings: Settings, ledger: Ledger) -> list[str]:
    """Make the attempt's folder and return the command that runs in it. Raises OSError, ValueError and LeaseLost."""
    out = folder(claim, storage)
    out.mkdir(parents=True, exist_ok=True)
    if claim.upload is not None:
        upload = storage.upload_path(claim.upload.tenant_id, claim.upload.sha256)
        return [sys.executable, "-m", *_READERS[claim.kind](claim), str(upload), "--out", str(out), "--events"]
    if claim.dataset_path is None:
        raise ValueError("its dataset has no files")
    config = out / "config.json"
    config.write_text(json.dumps(claim.config, indent=2, allow_nan=False))
    trainer = settings.trainer_command or [sys.executable, "-m", "ssl_core", "run"]
    command = [*trainer, str(config), "--data", str(storage.absolute(claim.dataset_path)), "--out", str(out)]
    told = out / "provenance.json"
    told.write_text(json.dumps(claim.provenance, allow_nan=False))
    command += ["--provenance", str(told)]
    if claim.model_path is not None:
        command += ["--model", str(storage.absolute(claim.model_path))]
    if (checkpoint := _checkpoint(claim, storage, ledger)) is not None:
        command += ["--resume", str(checkpoint)]
    return [*command, "--events"]


def _ingest(claim: Claim) -> list[str]:
    return ["worker.uploads.ingest", "--on-bad-file", claim.config["on_bad_file"]]


def _import(claim: Claim) -> list[str]:
    asked = {name: claim.config[name] for name in Import.model_fields}
    return [
        "worker.uploads.import_weights",
        "--config",
        json.dumps(asked),
        "--provenance",
        json.dumps(claim.provenance),
    ]


_READERS = {INGEST: _ingest, IMPORT: _import}  # of uploads, by the kind of job


def _checkpoint(claim: Claim, storage: Storage, ledger: Ledger) -> Path | None:
    """Return the newest checkpoint that is as it was written; say in the ledger which ones are not."""
    for candidate in claim.checkpoints:
        fault = _fault(storage.absolute(candidate.path), candidate.sha256, ledger)
        if fault is None:
            return storage.absolute(candidate.path)
        message = f"The checkpoint of step {candidate.step} is {fault}; going on from an earlier one or the start."
        data = {"step": candidate.step, "path": candidate.path}
        ledger.disown(candidate.path, Log("warning", message, "checkpoint_damaged", data))
    return None


def _fault(path: Path, sha256: str, ledger: Ledger) -> str | None:
    """Say what is wrong with the file, if anything. The lease is kept while a large one is read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                ledger.sync()
    except FileNotFoundError:
        return "missing"
    return None if digest.hexdigest() == sha256 else "damaged"
