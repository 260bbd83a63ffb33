"""Retention: what is deleted after the days of the settings, and what never is."""

import pytest
from sqlalchemy import select

from service import audit, datasets, jobs, lifecycle, steering
from service.db.models import Artifact, Checkpoint, Dataset, Job
from service.deletion import retention
from service.indexes import registry
from service.settings import Settings
from tests.service import given
from tests.service.deletion.conftest import EMBEDDINGS

DAY = 86_400


@pytest.fixture
def expire(write):
    """Return a function that deletes what has expired by the settings, and returns the number of jobs concerned."""
    return lambda **settings: write(retention.delete_expired, Settings(**settings))


@pytest.fixture
def grow_old(database):
    """Return a function that puts the end of a job so many days back."""

    def change(job, days):
        with database.writing() as session:
            session.get_one(Job, job.id).finished_at -= days * DAY

    return change


def test_nothing_is_deleted_without_a_setting(run_job, grow_old, expire, count):
    job = run_job()
    grow_old(job, 10_000)
    assert expire() == 0
    assert count(Checkpoint) == count(Artifact) == 1


@pytest.mark.parametrize(
    ("ending", "setting", "left"),
    [
        ("succeeded", "retention_checkpoint_days", (0, 1)),
        ("succeeded", "retention_failed_checkpoint_days", (1, 1)),
        ("succeeded", "retention_artifact_days", (1, 0)),
        ("failed", "retention_checkpoint_days", (1, 1)),  # a retry goes on from it
        ("failed", "retention_failed_checkpoint_days", (0, 1)),
        ("cancelled", "retention_failed_checkpoint_days", (0, 1)),
        ("failed", "retention_artifact_days", (1, 0)),
    ],
)
def test_each_setting_deletes_its_results_after_its_days(database, run_job, grow_old, expire, ending, setting, left):
    old, young = run_job(ending), run_job(ending)
    grow_old(old, 8)
    grow_old(young, 6)
    expired = sum(left) < 2
    assert [expire(**{setting: 7}) for _ in range(2)] == [int(expired), 0]
    with database.reading() as session:
        for job, wanted in ((old, left), (young, (1, 1))):
            assert (len(jobs.checkpoints(session, job.id)), len(jobs.artifacts(session, job.id))) == wanted
        last = jobs.events(session, old.id).items[-1]
        row = session.get_one(Job, old.id)
    assert (row.freed_at is not None) == expired
    if expired:
        assert (last.code, last.data) == ("expired", {"setting": f"TWOVIEWS_{setting.upper()}"})
        assert last.message.endswith("were deleted, 7 days after its end.")


def test_a_job_that_has_not_ended_loses_nothing(database, tenant, dataset, grow_old, write, expire, count):
    """Not even one that has ended before, and is retried."""
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.checkpoint(10))
    given.finish_job(database, claim, "failed")
    grow_old(job, 100)
    write(steering.retry, tenant, job.id)
    write(steering.pause, tenant, job.id)
    every = {"retention_checkpoint_days": 1, "retention_failed_checkpoint_days": 1}
    assert expire(**every) == 0
    assert count(Checkpoint) == 1


def test_a_job_loses_nothing_while_an_index_of_it_is_built(database, run_job, grow_old, expire, index, count):
    job = run_job("succeeded", EMBEDDINGS)
    grow_old(job, 8)
    index(job)
    assert expire(retention_artifact_days=7) == 0
    assert count(Artifact, Artifact.job_id == job.id) == 2
    given.finish_job(database, given.claim_job(database, "data"))
    assert expire(retention_artifact_days=7) == 1
    assert count(Artifact, Artifact.job_id == job.id) == 0


def test_a_failed_job_without_its_checkpoints_is_retried_from_the_start(
    database, tenant, run_job, grow_old, write, expire
):
    job = run_job("failed")
    grow_old(job, 2)
    assert expire(retention_failed_checkpoint_days=1) == 1
    assert write(steering.retry, tenant, job.id).status == "queued"
    assert given.claim_job(database).checkpoints == ()


def test_uploads_that_have_failed_are_deleted_and_others_kept(database, tenant, dataset, expire):
    old, young = (given.create_dataset(database, tenant, f"{number:064x}") for number in range(2))
    for _ in range(2):
        given.finish_job(database, given.claim_job(database, "data"), "failed", {"code": "bad", "detail": "Bad."})
    with database.writing() as session:
        for name in (old.id, dataset):
            session.get_one(Dataset, name).created_at -= 8 * DAY
    assert expire(retention_failed_upload_days=7) == 1
    with database.reading() as session:
        assert {row.id for row in datasets.list_(session, tenant).items} == {young.id, dataset}
        (entry,) = audit.list_(session, tenant).items
    assert (entry.action, entry.target, entry.key_id) == ("dataset.delete", old.id, None)
    assert entry.detail == {"setting": "TWOVIEWS_RETENTION_FAILED_UPLOAD_DAYS"}


def test_parts_are_bounded(database, tenant, run_job, grow_old, expire, monkeypatch):
    monkeypatch.setattr(retention, "PART", 2)
    for _ in range(3):
        grow_old(run_job(), 8)
    assert [expire(retention_checkpoint_days=7) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_job_that_is_being_retried_is_passed_over(database, tenant, run_job, grow_old, expire):
    job = run_job("failed")
    grow_old(job, 8)
    with database.writing() as session:
        lifecycle.retry(session, jobs.lock(session, tenant, job.id), None, "Retried.")
        assert expire(retention_failed_checkpoint_days=7) == 0
    with database.reading() as session:
        assert session.scalars(select(Checkpoint.step).where(Checkpoint.job_id == job.id)).all() == [10]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_job_of_which_an_index_is_being_created_is_passed_over(database, tenant, run_job, grow_old, expire, count):
    job = run_job("succeeded", EMBEDDINGS)
    grow_old(job, 8)
    with database.writing() as session:
        registry.create(session, tenant, job.id)
        assert expire(retention_artifact_days=7) == 0
    assert count(Artifact, Artifact.job_id == job.id) == 2
