"""The keeper: rings, requeues, removes unused files, and survives an unreachable database or broker."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service import audit, datasets, workers
from service.db.session import Database
from service.doorbell import Doorbell
from service.monitoring import heartbeats
from service.settings import Settings
from service.storage import Storage
from tests import servers
from tests.faults.fleet import ROOT
from tests.processes import soon
from tests.service import given
from worker.keeper import Keeper

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SHORT = {
    "lease_seconds": 1,
    "heartbeat_seconds": 0.2,
    "ring_seconds": 0.1,
    "reap_seconds": 0.1,
    "sweep_seconds": 0.1,
    "leftover_seconds": 0.1,
    "worker_seen_seconds": 0.3,
}


@contextmanager
def running_keeper(settings: Settings, **changed: object) -> Iterator[threading.Thread]:
    """Run a keeper in a thread."""
    stop = threading.Event()
    keeper = Keeper(settings.model_copy(update=SHORT | changed))
    thread = threading.Thread(target=keeper.run, args=[stop])
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def depth(settings: Settings) -> Callable[[str], int | None]:
    return Doorbell(settings.broker_url).depth


def test_it_rings_once_for_each_queued_job(
    database: Database, settings: Settings, tenant: str, depth: Callable[[str], int | None]
) -> None:
    dataset = given.create_ready_dataset(database, tenant)
    for _ in range(3):
        given.submit_job(database, tenant, dataset)
    with running_keeper(settings, worker_seen_seconds=1000):
        soon(lambda: depth("train") == 3)
        given.submit_job(database, tenant, dataset)
        soon(lambda: depth("train") == 4)
    assert depth("train") == 4


def test_an_idle_queue_is_rung_so_that_its_worker_marks_itself_as_seen(
    database: Database, settings: Settings, depth: Callable[[str], int | None]
) -> None:
    with running_keeper(settings):
        soon(lambda: depth("train") == depth("data") == 1)


def test_a_job_whose_lease_expired_is_requeued_and_rung_for(
    database: Database, settings: Settings, tenant: str, depth: Callable[[str], int | None]
) -> None:
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    given.claim_job(database, lease_seconds=0)
    with running_keeper(settings, ring_seconds=1000, worker_seen_seconds=1000):
        soon(lambda: given.get_job(database, job).status == "queued")
        soon(lambda: depth("train") or 0)
    assert given.get_job(database, job).fruitless == 1


def test_unreferenced_files_are_removed_and_referenced_ones_kept(
    database: Database, settings: Settings, tenant: str
) -> None:
    dataset = given.create_dataset(database, tenant)
    archive = settings.data_dir / "uploads" / tenant / dataset.sha256
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"zip")
    stray = archive.with_name("ef" * 32)
    stray.write_bytes(b"zip")
    with database.writing() as session:
        workers.record_heartbeat(session, "train@here:1", "train")
    with running_keeper(settings):
        soon(lambda: not stray.exists())
    assert archive.exists()


@on_sqlite
def test_entries_of_the_audit_trail_are_deleted_after_the_days_of_the_setting(
    database: Database, settings: Settings, tenant: str
) -> None:
    def list_targets() -> list[str]:
        with database.reading() as session:
            return [entry.target for entry in audit.list_(session, tenant).items]

    with database.writing() as session:
        for days in (31, 29):
            audit.record(session, audit.Actor(tenant), "key.create", f"key_{days}", seconds_ago=days * 86_400)
    assert list_targets() == ["key_29", "key_31"]
    with running_keeper(settings, audit_days=30):
        soon(lambda: list_targets() == ["key_29"])


@on_sqlite
def test_files_of_deleted_and_failed_datasets_and_unused_uploads_are_removed_long_before_other_leftovers(
    database: Database, settings: Settings, tenant: str
) -> None:
    def put(path: str, seconds: float = 600) -> Path:
        """Write a file that was last written so long ago, and its folders with it."""
        file = settings.data_dir / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"bytes")
        for touched in (file, *file.parents):
            if touched.is_relative_to(settings.data_dir):
                os.utime(touched, (time.time() - seconds,) * 2)
        return file

    kept, deleted = (given.create_ready_dataset(database, tenant, f"{number:064x}") for number in range(2))
    failed = given.create_dataset(database, tenant, f"{2:064x}").id
    given.finish_job(database, given.claim_job(database, "data"), "failed")
    with database.writing() as session:
        datasets.delete(session, tenant, deleted)
    job = given.submit_job(database, tenant, kept)
    removed = [
        *(put(f"datasets/{dataset}/a1/images.arrow") for dataset in (deleted, failed)),
        put(f"datasets/{kept}/a7/images.arrow"),  # of an attempt that was killed
        *(put(f"uploads/{tenant}/{number:064x}") for number in range(4)),  # ingested, failed, refused
        put("tmp/abandoned.upload"),
    ]
    files = [
        put(f"datasets/{kept}/a1/images.arrow"),
        put(f"jobs/{job.id}/a7/checkpoint.pt"),  # swept after a day
        put("pins/backup-1/images.arrow"),
        put(f"uploads/{tenant}/{5:064x}", seconds=10),  # about to get its row
        put("tmp/receiving.upload", seconds=10),
    ]
    with running_keeper(settings, sweep_seconds=1000, leftover_seconds=86_400, cleanup_seconds=0.05):
        soon(lambda: not any(path.exists() for path in removed))
    assert [path for path in files if not path.exists()] == []


@on_sqlite
def test_nothing_is_removed_while_a_backup_takes_its_snapshot(
    database: Database, settings: Settings, tenant: str
) -> None:
    stray = settings.data_dir / "uploads" / tenant / given.SHA
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"zip")
    os.utime(stray, (0, 0))
    keeper = Keeper(settings)
    with Storage(settings.data_dir).without_sweep():
        keeper._clean_up()
        assert stray.exists()
    keeper._clean_up()
    assert not stray.exists()
    stop = threading.Event()
    stop.set()
    keeper.run(stop)  # closes its connections


@on_sqlite
def test_it_survives_an_unreachable_database_and_rings_afterwards(
    database: Database,
    settings: Settings,
    tenant: str,
    tmp_path: Path,
    depth: Callable[[str], int | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    given.submit_job(database, tenant, given.create_ready_dataset(database, tenant))
    database.close()
    away = tmp_path / "away" / "twoviews.db"
    with running_keeper(settings, database_url=f"sqlite:///{away}", worker_seen_seconds=1000) as keeper:
        soon(lambda: all(f"could not {task}:" in caplog.text for task in ("ring", "reap", "sweep", "ring workers")))
        assert keeper.is_alive()
        copy = tmp_path / "copy"
        copy.mkdir()
        (tmp_path / "twoviews.db").rename(copy / "twoviews.db")
        copy.rename(away.parent)
        soon(lambda: depth("train") == 1)


def test_it_survives_an_unreachable_broker_and_rings_afterwards(
    database: Database, settings: Settings, tenant: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given.submit_job(database, tenant, given.create_ready_dataset(database, tenant))
    with running_keeper(settings, broker_url=servers.valkey_url(tmp_path), worker_seen_seconds=1000) as keeper:
        soon(lambda: "Messages to the broker were not sent" in caplog.text)
        assert keeper.is_alive()
        with servers.valkey(tmp_path) as url:
            soon(lambda: Doorbell(url).depth("train") == 1)


def test_sigterm_ends_it(settings: Settings) -> None:
    names = ("data_dir", "database_url", "broker_url")  # without them it would sweep the default folder
    environment = {f"TWOVIEWS_{name.upper()}": str(getattr(settings, name)) for name in names}
    command = [sys.executable, "-c", "import worker.keeper as k; print('ready', flush=True); k.main()"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline()
        threading.Event().wait(0.5)
        keeper.terminate()
        assert keeper.wait(20) == 0


def test_workers_and_keepers_import_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, worker.app, worker.keeper, worker.trainer.supervisor\n"
        "heavy = {'torch', 'numpy', 'PIL', 'pyarrow', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@on_sqlite
def test_it_records_its_heartbeat_and_is_no_worker(database: Database, settings: Settings) -> None:
    def is_seen() -> bool:
        with database.reading() as session:
            assert workers.list_recent(session, 60) == []
            return heartbeats.read(session, 60)[workers.KEEPER].recent == 1

    with running_keeper(settings):
        soon(is_seen)
