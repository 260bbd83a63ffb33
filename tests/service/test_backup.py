"""Backups: consistent with what is written meanwhile, incremental, resumable; restored into each kind of database."""

import json
import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select, text

from service import keys
from service.__main__ import main
from service.backup import create, manifest, restore
from service.backup.create import _pin
from service.backup.pins import Pins
from service.backup.snapshot import open_snapshot
from service.db import migrate
from service.db.models import Base, Checkpoint, Dataset, Job, JobEvent, Tenant
from service.db.session import Database
from service.monitoring import last_runs
from service.workers import record_heartbeat
from ssl_core import events
from ssl_core.checksums import document
from tests.service import given
from tests.service.conftest import describe

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
to_sqlite = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)


def rows(database: Database) -> dict[str, list[tuple]]:
    """Return every row of every table."""
    with database.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)))) for table in Base.metadata.sorted_tables
        }


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def back_up(out: Path, *options: str) -> int:
    return main(["backup", str(out), *options])


@pytest.fixture
def elsewhere(tmp_path, empty_database_url, monkeypatch, stored) -> Path:
    """The data folder of another service, whose database is empty too; the commands are for this one from here on."""

    def move() -> Path:
        monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("TWOVIEWS_DATABASE_URL", empty_database_url)
        return tmp_path / "elsewhere"

    return move


def test_a_restored_service_has_the_same_rows_and_files(
    stored, database, storage, tenant, elsewhere, empty_database_url, tmp_path, capsys
):
    with database.writing() as session:
        key = keys.create(session, tenant, "laptop")[1]
        record_heartbeat(session, "worker-1", "train")
    parent = given.submit_job(database, tenant, next(iter(dataset_ids(database))))
    child = given.submit_job(database, tenant, parent.dataset_id, "knn_eval", model=parent.id)
    given.record_events(database, given.claim_job(database), given.metrics(1), given.metrics(2, loss=None))
    (storage.root / "credentials.json").write_text('{"key": "tv_1"}')
    assert back_up(tmp_path / "backup") == 0
    before = rows(database)
    data = elsewhere()
    assert main(["restore", str(tmp_path / "backup")]) == 0
    restored = Database(empty_database_url)
    after = rows(restored)
    different = {name for name in before if before[name] != after[name]}
    assert different == {"workers", "jobs", "job_events"}
    assert after["workers"] == []
    with restored.writing() as session:
        assert keys.authenticate(session, key).tenant_id == tenant
        job = session.get_one(Job, parent.id)
        assert (job.status, job.attempt, job.fruitless, job.lease_until) == ("queued", 1, 0, None)
        assert session.get_one(Job, child.id).status == "waiting"
        last = select(JobEvent.message).where(JobEvent.job_id == parent.id).order_by(JobEvent.seq.desc()).limit(1)
        assert session.scalars(last).one() == "Restored from a backup."
        assert len(before["job_events"]) + 1 == len(after["job_events"])
    # Numbers that the database gives out go on: a new series does not collide with a restored one.
    given.record_events(restored, given.claim_job(restored), given.metrics(3, loss=0.5, other=1.0))
    restored.close()
    ours, theirs = files(storage.root), files(data)
    kept = ours.keys() - {"sweep.lock", "last_backup.json"}
    assert {path: theirs[path] for path in kept} == {path: ours[path] for path in kept}
    assert last_runs.read_all(storage.root)["backup"].damaged == 0
    assert theirs.keys() - ours.keys() <= {"twoviews.db", "twoviews.db-wal", "twoviews.db-shm"}
    assert (data / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert main(["verify"]) == 0
    assert main(["bootstrap", "--url", "http://127.0.0.1:1"]) == 0


def dataset_ids(database):
    with database.reading() as session:
        return list(session.scalars(select(Dataset.id).where(Dataset.status == "ready")))


def test_a_snapshot_sees_no_later_write(database, tmp_path):
    with open_snapshot(database) as snapshot:
        with database.writing() as session:
            keys.get_or_create_tenant(session, "later")
        snapshot.write(tmp_path / "copy.db")
    copy = Database(f"sqlite:///{tmp_path / 'copy.db'}")
    with copy.reading() as session:
        assert session.scalars(select(Tenant.name)).all() == []
    copy.close()


def running_job(database, storage, tenant, dataset) -> tuple[object, Path]:
    """A job that a worker runs, with checkpoints 1 and 2 and an artifact; its claim, and its folder."""
    given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    folder = storage.attempt_dir(claim.job_id, claim.attempt)
    folder.mkdir(parents=True)
    for name in ("1.pt", "2.pt", "curves.png"):
        (folder / name).write_bytes(name.encode())
    given.record_events(
        database,
        claim,
        events.Checkpoint(1, 0.1, "1.pt", **describe(b"1.pt")),
        events.Checkpoint(2, 0.2, "2.pt", **describe(b"2.pt")),
        events.Artifact("curves.png", "curves.png", "image/png", **describe(b"curves.png")),
    )
    return claim, folder


@on_sqlite
@to_sqlite
def test_what_a_trainer_replaces_meanwhile_is_taken_at_a_later_moment_or_left_out(
    stored, database, storage, tenant, elsewhere, empty_database_url, tmp_path, monkeypatch
):
    claim, folder = running_job(database, storage, tenant, dataset_ids(database)[0])
    (folder / "1.pt").unlink()  # the trainer has removed it, and its row is still there
    (folder / "curves.png").write_bytes(b"newer pict")
    monkeypatch.setattr(create, "_PAUSE_SECONDS", 0.0)
    moments = []

    def pin(snapshot, pins):
        moments.append(snapshot)
        if len(moments) == 3:
            given.record_events(
                database,
                claim,
                events.Artifact("curves.png", "curves.png", "image/png", **describe(b"newer pict")),
            )
        return _pin(snapshot, pins)

    monkeypatch.setattr(create, "_pin", pin)
    assert back_up(tmp_path / "backup") == 0
    assert len(moments) == create._TRIES
    elsewhere()
    assert main(["restore", str(tmp_path / "backup")]) == 0
    restored = Database(empty_database_url)
    with restored.reading() as session:
        assert [row.step for row in session.scalars(select(Checkpoint).where(Checkpoint.job_id == claim.job_id))] == [2]
    restored.close()
    assert main(["verify"]) == 0
    assert (tmp_path / "elsewhere" / "jobs" / claim.job_id / "a1" / "curves.png").read_bytes() == b"newer pict"


@on_sqlite
def test_files_that_are_deleted_while_they_are_copied_are_in_the_backup(stored, database, storage, tmp_path):
    def delete_everything(done: int, total: int) -> None:
        shutil.rmtree(storage.root / "datasets", ignore_errors=True)
        shutil.rmtree(storage.root / "jobs", ignore_errors=True)

    expected = {path.name: path.read_bytes() for path in stored.values()}
    written = create.create(database, storage, tmp_path / "backup", None, delete_everything)
    assert written.damaged == []
    assert expected.items() <= {path.name: path.read_bytes() for path in (tmp_path / "backup").rglob("*.*")}.items() | {
        (stored["upload"].name, stored["upload"].read_bytes())
    }
    assert list(storage.pins_dir.iterdir()) == []


@on_sqlite
def test_the_sweep_waits_for_the_snapshot_and_not_for_the_copies(stored, database, storage, tmp_path, monkeypatch):
    seen = []

    def is_free() -> bool:
        with storage.without_sweep(wait=False) as held:
            return held

    monkeypatch.setattr(create, "_pin", lambda *given: (seen.append(is_free()), _pin(*given))[1])
    create.create(database, storage, tmp_path / "backup", None, lambda done, total: seen.append(is_free()))
    assert seen[0] is False
    assert len(seen) > 3
    assert all(seen[1:])


@on_sqlite
def test_a_backup_since_an_earlier_one_copies_what_has_changed(stored, storage, tmp_path, capsys):
    assert back_up(tmp_path / "first") == 0
    replaced = stored["artifact"]
    replaced.unlink()
    replaced.write_bytes(b"another")  # unlike its row
    assert back_up(tmp_path / "second", "--since", str(tmp_path / "first")) == 1
    assert capsys.readouterr().out.startswith("corrupt\tartifact\tjobs/")
    first, second = (manifest.load(tmp_path / name) for name in ("first", "second"))
    assert first.files.keys() == second.files.keys()
    copied = {path for path in second.files if (tmp_path / "second" / path).stat().st_nlink == 1}
    assert copied == {"twoviews.db", f"data/{storage.relative(replaced)}"}
    assert back_up(tmp_path / "third", "--since", str(tmp_path / "second")) == 1  # known to be damaged
    assert capsys.readouterr().out.startswith("corrupt\tartifact\tjobs/")


class Killed(BaseException):
    """The process is killed."""


@on_sqlite
@to_sqlite
def test_a_killed_backup_looks_like_none_and_is_continued(stored, database, storage, tmp_path, elsewhere, capsys):
    def die(done: int, total: int) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        create.create(database, storage, tmp_path / "backup", None, die)
    partial = tmp_path / ".backup.partial"
    assert not (tmp_path / "backup").exists()
    assert main(["restore", str(partial)]) == 1
    assert "is not a backup" in capsys.readouterr().err
    inodes = {path.name: path.stat().st_ino for path in (partial / "data").rglob("*") if path.is_file()}
    assert len(inodes) > 2
    (partial / "data" / "datasets" / "ds_gone").mkdir(parents=True)
    (partial / "data" / "datasets" / "ds_gone" / "images.arrow").write_bytes(b"of a dataset deleted since")
    assert back_up(tmp_path / "backup") == 0
    assert not partial.exists()
    assert not (tmp_path / "backup" / "data" / "datasets" / "ds_gone").exists()
    kept = {path.name: path.stat().st_ino for path in (tmp_path / "backup" / "data").rglob("*") if path.is_file()}
    assert inodes.items() <= kept.items()
    elsewhere()
    assert main(["restore", str(tmp_path / "backup")]) == 0


@on_sqlite
def test_a_restoration_that_is_killed_when_it_has_put_the_database_in_its_place_is_completed(
    stored, storage, tmp_path, elsewhere, empty_database_url, capsys, monkeypatch
):
    assert back_up(tmp_path / "backup") == 0
    put = restore._put_database

    def put_and_die(*given) -> None:
        put(*given)
        raise Killed

    data = elsewhere()
    monkeypatch.setattr(restore, "_put_database", put_and_die)
    with pytest.raises(Killed):
        main(["restore", str(tmp_path / "backup")])
    monkeypatch.setattr(restore, "_put_database", put)
    assert (data / restore.MARK).exists()
    restored = Database(empty_database_url)
    before = rows(restored)
    assert main(["restore", str(tmp_path / "backup")]) == 0
    assert rows(restored) == before
    restored.close()
    assert main(["verify"]) == 0
    assert [name for name in files(data) if name.startswith(".") or name == restore.MARK] == []
    assert main(["restore", str(tmp_path / "backup")]) == 1
    assert f"{data} is not empty" in capsys.readouterr().err


@on_sqlite
def test_a_backup_overwrites_nothing(stored, storage, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for out, sentence in ((tmp_path / "full", "exists already"), (storage.root / "backup", "inside the data folder")):
        assert back_up(out) == 1
        assert sentence in capsys.readouterr().err
    assert files(tmp_path / "full") == {"file": b"mine"}
    (tmp_path / "empty").mkdir()
    assert back_up(tmp_path / "empty") == 0


@on_sqlite
def test_a_database_of_another_version_is_not_backed_up(stored, database, tmp_path, capsys):
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert back_up(tmp_path / "backup") == 1
    assert "is at revision 0001, and this version of Twoviews backs up revision" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("database_url", "empty_database_url"), [("sqlite", "sqlite"), ("postgresql", "postgresql")], indirect=True
)
def test_a_restoration_overwrites_no_folder_and_no_database(
    stored, database, database_url, storage, elsewhere, empty_database_url, tmp_path, capsys, monkeypatch
):
    assert back_up(tmp_path / "backup") == 0
    before = files(storage.root), rows(database)
    assert main(["restore", str(tmp_path / "backup")]) == 1
    assert f"{storage.root} is not empty" in capsys.readouterr().err
    data = elsewhere()
    monkeypatch.setenv("TWOVIEWS_DATABASE_URL", database_url)
    assert main(["restore", str(tmp_path / "backup")]) == 1
    assert "is not empty. Restore into an empty one." in capsys.readouterr().err
    assert (files(storage.root), rows(database)) == before
    elsewhere()
    assert main(["restore", str(tmp_path / "backup")]) == 0  # the folder has nothing but the mark
    assert "restore.partial" not in files(data)


@on_sqlite
@to_sqlite
def test_a_damaged_backup_is_not_restored_unless_asked_for(stored, storage, elsewhere, tmp_path, capsys):
    assert back_up(tmp_path / "backup") == 0
    path = tmp_path / "backup" / "data" / storage.relative(stored["weights.safetensors"])
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    data = elsewhere()
    assert main(["restore", str(tmp_path / "backup")]) == 1
    assert "1 files of the backup are damaged or missing: data/jobs/" in capsys.readouterr().err
    assert not (data / "twoviews.db").exists()
    assert main(["bootstrap", "--url", "http://127.0.0.1:1"]) == 1
    assert "was interrupted" in capsys.readouterr().err
    assert main(["restore", str(tmp_path / "backup"), "--keep-damaged"]) == 1
    assert capsys.readouterr().out.startswith("corrupt\tbackup\tdata/jobs/")
    assert main(["verify"]) == 1
    assert [line.split("\t")[:2] for line in capsys.readouterr().out.splitlines()] == [["corrupt", "model"]]


@on_sqlite
@to_sqlite
@pytest.mark.parametrize("name", [manifest.FILE, manifest.DATABASE])
def test_a_backup_without_a_sound_manifest_and_database_is_not_restored(stored, elsewhere, tmp_path, capsys, name):
    assert back_up(tmp_path / "backup") == 0
    path = tmp_path / "backup" / name
    path.write_bytes(path.read_bytes().replace(b"pictures", b"pictured").replace(b'"sqlite"', b'"SQLite"'))
    elsewhere()
    assert main(["restore", str(tmp_path / "backup"), "--keep-damaged"]) == 1
    assert "is damaged" in capsys.readouterr().err


@on_sqlite
@to_sqlite
def test_a_backup_of_a_newer_version_is_not_restored_and_an_older_one_is_migrated(
    stored, database, elsewhere, empty_database_url, tmp_path, capsys
):
    assert back_up(tmp_path / "backup") == 0
    path = tmp_path / "backup" / manifest.FILE
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(document.seal(fields | {"revision": "9999"})))
    elsewhere()
    assert main(["restore", str(tmp_path / "backup")]) == 1
    assert "of a newer version" in capsys.readouterr().err
    older = Database(f"sqlite:///{tmp_path / 'older.db'}")
    migrate.upgrade(older, "0002")
    older.close()
    shutil.copy(tmp_path / "older.db", tmp_path / "backup" / manifest.DATABASE)
    entry = describe((tmp_path / "older.db").read_bytes()) | {"modified_ns": 0}
    fields["files"] = {manifest.DATABASE: entry}
    path.write_text(json.dumps(document.seal(fields | {"revision": "0002"})))
    assert main(["restore", str(tmp_path / "backup")]) == 0
    restored = Database(empty_database_url)
    assert migrate.find_differences(restored) == []
    restored.close()


@on_sqlite
def test_pins_are_copies_where_hard_links_cannot_be_made(stored, database, storage, monkeypatch):
    def refuse(*paths):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    pins = Pins(storage)
    with open_snapshot(database) as snapshot:
        contents, _ = _pin(snapshot, pins)
    assert len(contents.items) == 5
    assert {path.read_bytes() for path in pins.root.rglob("*") if path.is_file()} == {
        path.read_bytes() for path in stored.values()
    }
    pins.remove()
