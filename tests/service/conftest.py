"""Fixtures of the tests of stored files: one item of each kind, sound."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from service.db.models import Dataset
from ssl_core import events
from ssl_core.checksums import document
from tests.service import given
from tests.ssl_core.digits import pack_digits

FILES = {"weights.safetensors": b"w" * 5000, "heads.safetensors": b"h" * 300, "README.md": b"# A model\n"}
UPLOAD = b"an upload"


def describe(data: bytes) -> dict:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return pack_digits(tmp_path_factory.mktemp("packed"), 20, 0)


@pytest.fixture
def stored(database, database_url, tenant, storage, packed, monkeypatch) -> dict[str, Path]:
    """One item of each kind, sound: the files by name."""
    monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(storage.root))
    monkeypatch.setenv("TWOVIEWS_DATABASE_URL", database_url)
    dataset = given.create_ready_dataset(database, tenant)
    folder = storage.dataset_dir(dataset, 1)
    shutil.copytree(packed, folder)
    given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    run = storage.attempt_dir(claim.job_id, 1)
    (run / "model").mkdir(parents=True)
    card = document.seal({"format": 2, "dim": 64, "files": {name: describe(data) for name, data in FILES.items()}})
    for name, data in (FILES | {"model.json": json.dumps(card).encode()}).items():
        (run / "model" / name).write_bytes(data)
    (run / "a.pt").write_bytes(b"checkpoint")
    (run / "a.png").write_bytes(b"picture")
    weights = describe(FILES["weights.safetensors"])
    given.record_events(
        database,
        claim,
        events.Checkpoint(1, 0.1, "a.pt", **describe(b"checkpoint")),
        events.Artifact("a.png", "a.png", "image/png", **describe(b"picture")),
        events.Model("model", **weights, dim=64, card=card),
        events.Result({}),
    )
    given.finish_job(database, claim)
    sha256 = describe(UPLOAD)["sha256"]
    waiting = given.create_dataset(database, tenant, sha256)
    with database.writing() as session:
        session.get_one(Dataset, waiting.id).size_bytes = len(UPLOAD)
    upload = storage.upload_path(tenant, sha256)
    upload.write_bytes(UPLOAD)
    files = {path.name: path for path in (*folder.iterdir(), *(run / "model").iterdir())}
    return files | {"checkpoint": run / "a.pt", "artifact": run / "a.png", "upload": upload}
