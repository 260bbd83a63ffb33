"""Verification: every kind of stored file, sound, damaged, missing and of earlier versions; interruption."""

import json
import shutil
from pathlib import Path

from sqlalchemy import select

from service.__main__ import main
from service.db.models import Dataset, Model
from service.verify import state, walk
from service.verify.walk import Walk
from tests.service.conftest import FILES, describe


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
