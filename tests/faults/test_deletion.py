"""Kill -9 while a job or a model is deleted: afterwards it is there or gone, as a whole, and no file is left over."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from service.db.models import Checkpoint, Job, JobEvent, Model, Series
from service.db.session import Database
from service.deletion import jobs as job_deletion
from service.deletion import models as model_deletion
from service.settings import Settings
from service.storage import Storage
from ssl_core import events
from tests.service import given
from worker.keeper import Keeper

FILES = ("model/weights.safetensors", "model/model.json", "loss.png", "checkpoint-000000010.pt")
MOST = 60  # kills, of which each has to be later than the one before
REMOVALS = frozenset({"os.rename", "os.remove", "os.rmdir", "shutil.rmtree"})  # audit events


def run_in_child(call: Callable[[], object]) -> int:
    """Call the function in a forked process; return its exit status, 0 or minus the signal that killed it."""
    child = os.fork()
    if not child:
        status = 1
        try:
            call()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Killer:
    """Kills its own process at the call of that number."""

    def __init__(self, number: int) -> None:
        self._left = number

    def count(self, *details: Any) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, name: str, arguments: object) -> None:
        if name in REMOVALS:
            self.count()


def make_job(database: Database, tenant: str, dataset: str, storage: Storage, ending: str) -> Job:
    """Run a job to its end, which leaves FILES, an hour ago."""
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    folder = storage.attempt_dir(job.id, 1)
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"bytes")
    artifact = events.Artifact("loss.png", "loss.png", "image/png", given.SHA, 5)
    given.record_events(database, claim, given.metrics(1), given.checkpoint(10), artifact, given.model())
    given.finish_job(database, claim, ending)
    for path in (folder.parent, *folder.parent.rglob("*")):
        os.utime(path, (time.time() - 3600,) * 2)
    return given.get_job(database, job.id)


def list_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def clean_up(settings: Settings) -> None:
    keeper = Keeper(settings)
    keeper._clean_up()
    keeper._delete_points()
    keeper._database.close()
    keeper._doorbell.close()


def count_rows(database: Database, job_id: str) -> list[int]:
    with database.reading() as session:
        return [
            session.scalars(select(func.count()).select_from(table).where(table.job_id == job_id)).one()
            for table in (Checkpoint, JobEvent, Series, Model)
        ]


def test_a_job_is_deleted_as_a_whole_or_not_at_all(
    database: Database, database_url: str, tenant: str, storage: Storage
) -> None:
    dataset = given.create_ready_dataset(database, tenant)
    job = make_job(database, tenant, dataset, storage, "failed")
    before = count_rows(database, job.id)

    def delete(number: int) -> None:
        own = Database(database_url)
        event.listen(own.engine, "after_cursor_execute", Killer(number).count)
        with own.writing() as session:
            job_deletion.delete(session, tenant, job.id)

    for number in range(MOST):
        status = run_in_child(lambda number=number: delete(number))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert count_rows(database, job.id) == before
        assert given.get_job(database, job.id).deleted_at is None
    assert status == 0
    assert number > 5, "no kill was in the middle"
    assert count_rows(database, job.id) == [0, 0, 0, 0]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("ending", ["failed", "succeeded"])
def test_no_file_is_left_over_when_the_keeper_is_killed_while_it_removes_them(
    database: Database, settings: Settings, tenant: str, storage: Storage, ending: str
) -> None:
    """Of a job that has failed all goes, of one that has succeeded its model."""
    dataset = given.create_ready_dataset(database, tenant)
    kept = make_job(database, tenant, dataset, storage, ending)
    settings = settings.model_copy(update={"cleanup_age_seconds": 60})

    def clean_up_until(number: int) -> None:
        sys.addaudithook(Killer(number).audit)
        clean_up(settings)

    kills = 0
    for number in range(MOST):
        job = make_job(database, tenant, dataset, storage, ending)
        folder = storage.root / "jobs" / job.id
        with database.writing() as session:
            if ending == "failed":
                job_deletion.delete(session, tenant, job.id)
            else:
                model_deletion.delete(session, tenant, job.id)
        status = run_in_child(lambda number=number: clean_up_until(number))
        kills += status == -signal.SIGKILL
        for path in folder.rglob("*"):
            os.utime(path, (time.time() - 3600,) * 2)
        clean_up(settings)
        left = {"a1/loss.png", "a1/checkpoint-000000010.pt"} if ending == "succeeded" else set()
        assert list_files(folder) == left, f"killed at removal {number}"
        assert given.get_job(database, job.id).freed_at is None
        shutil.rmtree(folder, ignore_errors=True)
        if status == 0:
            break
    assert status == 0
    assert kills >= 3
    assert list_files(storage.root / "jobs" / kept.id) == {f"a1/{name}" for name in FILES}
