"""The keeper's cleanup of jobs: files whose rows were deleted are removed, others kept, and points deleted in parts."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from service import steering
from service.db.models import Job, Point, Series
from service.db.session import Database
from service.deletion import jobs as job_deletion
from service.deletion import models as model_deletion
from service.settings import Settings
from service.storage import Storage
from ssl_core import events
from tests.service import given
from worker.keeper import Keeper

FILES = ("model/weights.safetensors", "loss.png", "checkpoint-000000010.pt", "config.json")
RunJob = Callable[..., Job]


@pytest.fixture
def keeper(settings: Settings) -> Iterator[Keeper]:
    keeper = Keeper(settings.model_copy(update={"cleanup_age_seconds": 60, "leftover_seconds": 60}))
    yield keeper
    keeper._database.close()
    keeper._doorbell.close()


@pytest.fixture
def run_job(database: Database, tenant: str, storage: Storage) -> RunJob:
    """Return a function that runs a job to its end, which leaves FILES, an hour ago."""
    dataset = given.create_ready_dataset(database, tenant)

    def run(ending: str = "succeeded") -> Job:
        job = given.submit_job(database, tenant, dataset)
        attempt(database, storage, ending)
        return given.get_job(database, job.id)

    return run


def attempt(database: Database, storage: Storage, ending: str) -> None:
    claim = given.claim_job(database)
    folder = storage.attempt_dir(claim.job_id, claim.attempt)
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"bytes")
    artifact = events.Artifact("loss.png", "loss.png", "image/png", given.SHA, 5)
    batch = (*(given.metrics(step) for step in range(5)), given.checkpoint(10), artifact, given.model())
    given.record_events(database, claim, *batch)
    given.finish_job(database, claim, ending)
    age(folder.parent)


def age(folder: Path, seconds: float = 3600) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - seconds,) * 2)


def list_files(storage: Storage, job: Job) -> set[str]:
    folder = storage.root / "jobs" / job.id
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def is_marked(database: Database, job: Job) -> bool:
    return given.get_job(database, job.id).freed_at is not None


def test_files_of_a_deleted_job_are_removed_and_those_of_others_kept(
    database: Database, keeper: Keeper, tenant: str, storage: Storage, run_job: RunJob
) -> None:
    deleted, kept = run_job("failed"), run_job("failed")
    before = list_files(storage, kept)
    with database.writing() as session:
        job_deletion.delete(session, tenant, deleted.id)
    keeper._clean_up()
    assert (list_files(storage, deleted), list_files(storage, kept)) == (set(), before)
    assert not is_marked(database, deleted)
    age(storage.root / "jobs")
    keeper._clean_up()
    assert [path.name for path in (storage.root / "jobs").iterdir()] == [kept.id]


def test_files_of_a_deleted_model_are_removed_and_those_of_its_job_kept(
    database: Database, keeper: Keeper, tenant: str, storage: Storage, run_job: RunJob
) -> None:
    job = run_job()
    with database.writing() as session:
        model_deletion.delete(session, tenant, job.id)
    keeper._clean_up()
    assert list_files(storage, job) == {"a1/loss.png", "a1/checkpoint-000000010.pt"}
    assert not is_marked(database, job)


def test_what_was_written_a_moment_ago_is_removed_later(
    database: Database, keeper: Keeper, tenant: str, storage: Storage, run_job: RunJob
) -> None:
    job = run_job("failed")
    late = storage.attempt_dir(job.id, 1) / "late.pt"
    late.write_bytes(b"of a trainer that has lost its lease")
    with database.writing() as session:
        job_deletion.delete(session, tenant, job.id)
    keeper._clean_up()
    assert "a1/late.pt" in list_files(storage, job)
    assert is_marked(database, job)
    age(late.parent)
    keeper._clean_up()
    assert list_files(storage, job) == set()


def test_a_job_that_is_retried_from_the_start_loses_the_files_of_its_earlier_attempts(
    database: Database, keeper: Keeper, tenant: str, storage: Storage, run_job: RunJob
) -> None:
    job = run_job("failed")
    with database.writing() as session:
        steering.retry(session, tenant, job.id, "start")
    keeper._clean_up()
    assert is_marked(database, job)  # the folder of the last attempt may still be in use
    claim = given.claim_job(database)
    running = storage.attempt_dir(job.id, 2) / "config.json"
    running.parent.mkdir(parents=True)
    running.write_text("{}")
    age(running.parent)
    keeper._clean_up()
    assert list_files(storage, job) == {"a2/config.json"}
    given.finish_job(database, claim, "failed")
    keeper._clean_up()
    assert not is_marked(database, job)


def test_files_stay_while_a_backup_takes_its_snapshot(
    database: Database, keeper: Keeper, tenant: str, storage: Storage, run_job: RunJob
) -> None:
    job = run_job("failed")
    with database.writing() as session:
        job_deletion.delete(session, tenant, job.id)
    with storage.without_sweep():
        keeper._clean_up()
        assert len(list_files(storage, job)) == len(FILES)
    keeper._clean_up()
    assert list_files(storage, job) == set()


def test_a_folder_that_is_gone_is_no_fault(
    database: Database, keeper: Keeper, tenant: str, storage: Storage, run_job: RunJob
) -> None:
    job = run_job("failed")
    with database.writing() as session:
        job_deletion.delete(session, tenant, job.id)
    shutil.rmtree(storage.root / "jobs" / job.id)
    keeper._clean_up()
    assert not is_marked(database, job)


def test_points_without_a_job_are_deleted(database: Database, keeper: Keeper, tenant: str, run_job: RunJob) -> None:
    def count(table: type) -> int:
        with database.reading() as session:
            return session.scalars(select(func.count()).select_from(table)).one()

    jobs = [run_job("failed") for _ in range(3)]
    for job in jobs[:2]:
        with database.writing() as session:
            job_deletion.delete(session, tenant, job.id)
    assert (count(Series), count(Point)) == (3, 15)
    keeper._delete_points()
    assert (count(Series), count(Point)) == (1, 5)


def test_expired_checkpoints_and_their_files_are_removed_and_the_model_kept(
    database: Database, settings: Settings, storage: Storage, run_job: RunJob
) -> None:
    job = run_job()
    with database.writing() as session:
        session.get_one(Job, job.id).finished_at -= 8 * 86_400  # type: ignore[operator]
    settings = settings.model_copy(update={"retention_checkpoint_days": 7.0, "cleanup_age_seconds": 60})
    keeper = Keeper(settings)
    keeper._sweep()
    keeper._clean_up()
    keeper._database.close()
    keeper._doorbell.close()
    assert list_files(storage, job) == {"a1/model/weights.safetensors", "a1/loss.png"}
    assert not is_marked(database, job)
