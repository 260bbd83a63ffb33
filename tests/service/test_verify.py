"""Verification: every kind of stored file, sound, damaged, missing and of earlier versions; interruption."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from service.__main__ import main
from service.db.models import Dataset, Model
from service.verify import state, walk
from service.verify.walk import Walk
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


def verify(capsys, *options: str) -> tuple[int, list[list[str]]]:
    """Run the command; return its status and the lines of its output."""
    status = main(["verify", *options])
    return status, [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_sound_storage_is_0_and_each_damaged_file_is_named(stored, storage, capsys):
    assert verify(capsys) == (0, [])
    assert not (storage.root / state.FILE).exists()
    names = {"dataset.json", "images.arrow", "pixels.npy", "blocks.sha256", "model.json", *FILES}
    assert stored.keys() == names | {"checkpoint", "artifact", "upload"}
    for path in stored.values():
        whole = path.read_bytes()
        flip(path)
        status, [[outcome, _, found]] = verify(capsys)
        assert (status, outcome, storage.root / found) == (1, "corrupt", path)
        path.unlink()
        status, [[outcome, _, found]] = verify(capsys)
        assert (status, outcome, storage.root / found) == (1, "missing", path)
        path.write_bytes(whole)


def test_a_dataset_of_an_earlier_version_is_counted_as_unchecked(stored, capsys):
    report = json.loads(stored["dataset.json"].read_text())
    old = {name: value for name, value in report.items() if name not in ("blocks", "checksum")}
    stored["dataset.json"].write_text(json.dumps(old))
    flip(stored["pixels.npy"])
    assert main(["verify"]) == 0
    assert "3 files of earlier versions" in capsys.readouterr().err


def test_hashes_of_a_model_of_an_earlier_version_are_recorded_once_it_is_known_to_be_sound(stored, database, capsys):
    card = json.loads(stored["model.json"].read_text())
    old = {name: value for name, value in card.items() if name not in ("files", "checksum")}
    stored["model.json"].write_text(json.dumps(old))
    heads = stored["model.json"].with_name("heads.safetensors")
    whole = stored["weights.safetensors"].read_bytes()
    flip(stored["weights.safetensors"])
    assert main(["verify", "--record"]) == 1
    assert "of 0 models was recorded" in capsys.readouterr().err
    assert json.loads(stored["model.json"].read_text()) == old
    stored["weights.safetensors"].write_bytes(whole)
    assert main(["verify", "--record"]) == 0
    assert "of 1 models was recorded" in capsys.readouterr().err
    sealed = json.loads(stored["model.json"].read_text())
    assert sealed["files"] == {name: describe(data) for name, data in FILES.items()}
    with database.reading() as session:
        assert session.scalars(select(Model.card)).one() == sealed
    assert main(["verify", "--record"]) == 0
    assert "of 0 models was recorded" in capsys.readouterr().err
    flip(heads)
    assert main(["verify"]) == 1
    assert "corrupt\tmodel" in capsys.readouterr().out


def test_an_interrupted_verification_goes_on_after_the_items_it_checked(stored, storage, database, capsys, monkeypatch):
    monkeypatch.setattr(walk, "SAVE_SECONDS", 0.0)
    flip(stored["artifact"])
    steps = iter(Walk(database, storage))
    assert next(progress.items for progress in steps if progress.items == 3) == 3
    assert (storage.root / state.FILE).exists()
    shutil.copy(stored["README.md"], stored["checkpoint"])  # checked already
    status, lines = verify(capsys)
    assert (status, [line[1] for line in lines]) == (1, ["artifact"])
    assert [line[1] for line in verify(capsys, "--restart")[1]] == ["artifact", "checkpoint"]


def test_a_state_that_cannot_be_read_starts_the_verification_anew(stored, storage, capsys):
    (storage.root / state.FILE).write_text('{"format": 1, "after": ["z"], "checksum": "0"}')
    flip(stored["weights.safetensors"])
    assert verify(capsys)[0] == 1


def test_what_is_deleted_during_a_verification_is_not_missing(stored, storage, database):
    running = Walk(database, storage)
    steps = iter(running)
    next(steps)
    shutil.rmtree(stored["dataset.json"].parent)
    with database.writing() as session:
        for row in session.query(Dataset):
            row.deleted_at = 1.0
    list(steps)
    assert [entry for entry in running.state.damaged if entry[0] == "dataset"] == []
