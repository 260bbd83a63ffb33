"""Killed backups and restorations: the commands as processes, with SIGKILL at system calls drawn for this run."""

import os
import random
import signal
import sys
from pathlib import Path

import pytest

import service
from service.__main__ import main
from service.backup import manifest
from service.backup.restore import MARK
from tests.faults.syscalls import tracer
from tests.service.test_backup import back_up, files, on_sqlite, rows

ROOT = Path(service.__path__[0]).parent
MOMENTS = 2  # at which each command is killed


@pytest.fixture
def backup(stored, tmp_path: Path) -> Path:
    """A backup of the service."""
    assert back_up(tmp_path / "backup") == 0
    return tmp_path / "backup"


def draw(rng: random.Random, command: list[str], folder: Path) -> list[int]:
    """Run the command undisturbed, and draw some of its calls that change files of the folder; return their numbers."""
    folder.mkdir()
    run = tracer.run(lambda: main(command), folder.resolve())
    assert run.answer == 0
    return rng.sample([place for place, call in enumerate(run.calls) if call.changes], MOMENTS)


def kill(place: int, command: list[str], folder: Path) -> None:
    """Run `python -m service` with the command, and kill it at that call on the folder."""
    folder.mkdir()
    program = [sys.executable, "-P", "-m", "service", *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = tracer.run(lambda: os.execve(program[0], program, environment), folder.resolve(), fault="kill", at=place)
    assert run.injected, "the process has made fewer calls than the undisturbed one"
    assert os.WTERMSIG(run.status) == signal.SIGKILL


def data_of(folder: Path) -> dict[str, bytes]:
    """The stored files of a service's data folder."""
    return {
        path: data for path, data in files(folder).items() if path.partition("/")[0] in ("datasets", "jobs", "uploads")
    }


@on_sqlite
def test_a_killed_backup_is_none_until_the_command_is_repeated(
    stored, database, storage, backup, tmp_path, rng, capsys
):
    before = data_of(storage.root), rows(database)
    out = tmp_path / "undisturbed" / "backup"
    for place in draw(rng, ["backup", str(out)], out.parent):
        out = tmp_path / f"killed at {place}" / "backup"
        kill(place, ["backup", str(out)], out.parent)
        is_complete = out.exists()  # the name is the last thing that it writes
        if not is_complete:
            assert main(["restore", str(out)]) == 1
            assert "is not a backup" in capsys.readouterr().err
            assert back_up(out) == 0
        assert {path.name for path in out.parent.iterdir()} == {"backup"}
        assert data_of(out / "data") == before[0]
        assert manifest.load(out).files.keys() == manifest.load(backup).files.keys()
    assert (data_of(storage.root), rows(database)) == before


@on_sqlite
def test_a_killed_restoration_goes_on_when_the_command_is_repeated(
    stored, storage, backup, tmp_path, monkeypatch, rng, capsys
):
    before, wanted = files(backup), data_of(storage.root)
    monkeypatch.delenv("TWOVIEWS_DATABASE_URL")  # the database is in the data folder
    data = tmp_path / "undisturbed"
    monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(data))
    for place in draw(rng, ["restore", str(backup)], data):
        data = tmp_path / f"killed at {place}"
        monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(data))
        kill(place, ["restore", str(backup)], data)
        if (data / MARK).exists():
            assert main(["bootstrap", "--url", "http://127.0.0.1:1"]) == 1
            assert "was interrupted" in capsys.readouterr().err
        if (data / MARK).exists() or not (data / "twoviews.db").exists():
            assert main(["restore", str(backup)]) == 0
        assert data_of(data) == wanted
        assert main(["verify"]) == 0
        assert not (data / MARK).exists()
    assert files(backup) == before
