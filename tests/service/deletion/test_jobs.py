"""Deletion of jobs: what refuses it, what goes with them, and what stays."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import garbage, jobs, models, steering
from service.db.models import Artifact, Checkpoint, Job, JobEvent, Model, Point, Series
from service.deletion import jobs as job_deletion
from service.deletion import models as model_deletion
from service.deletion import points
from service.errors import JobInUse, JobNotEnded, JobNotFound, ModelNotFound
from service.indexes import registry
from service.monitoring import counts
from service.quotas import usage
from service.verify.inventory import list_items
from tests.service import given
from tests.service.deletion.conftest import EMBEDDINGS

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def pointers(error):
    return [fault["pointer"] for fault in error.value.errors]


def test_a_deleted_job_is_not_found_and_its_rows_and_bytes_are_gone(database, tenant, run_job, write, count):
    job, other = run_job("failed", name="a"), run_job("failed")
    write(job_deletion.delete, tenant, job.id)
    for call in (jobs.get, jobs.show):
        with database.reading() as session, pytest.raises(JobNotFound):
            call(session, tenant, job.id)
    for table in (Checkpoint, Artifact, JobEvent, Series, Model):
        assert (count(table, table.job_id == job.id), count(table, table.job_id == other.id) > 0) == (0, True)
    with database.reading() as session:
        assert [row.id for row in jobs.list_(session, tenant).items] == [other.id]
        stored = usage.measure_bytes(session, tenant)
        assert (stored.models, stored.checkpoints, stored.artifacts) == (10, 10, 10)
        assert [path for path in garbage.live_paths(session) if job.id in path] == []
        assert f"jobs/{job.id}" in garbage.known_folders(session)  # its files are swept
        assert [item.path for item in list_items(session) if job.id in item.path] == []
        row = session.get_one(Job, job.id)
        assert (row.name, row.config, row.summary, row.resolved) == (None, {}, None, None)
    with pytest.raises(JobNotFound):
        write(job_deletion.delete, tenant, job.id)
    while write(points.delete_part, 6):
        assert count(Point) >= 20
    assert (count(Point), count(Series)) == (20, 1)


def test_a_job_that_has_not_ended_is_not_deleted(database, tenant, dataset, write):
    job = given.submit_job(database, tenant, dataset)
    for status in ("queued", "running", "pausing"):
        with pytest.raises(JobNotEnded, match=f"is {status}; cancel it first") as error:
            write(job_deletion.delete, tenant, job.id)
        assert pointers(error) == [f"/jobs/{job.id}"]
        given.claim_job(database) if status == "queued" else write(steering.pause, tenant, job.id)
    write(steering.resume, tenant, job.id)
    write(steering.cancel, tenant, job.id)
    with pytest.raises(JobNotEnded):
        write(job_deletion.delete, tenant, job.id)


def test_a_job_whose_model_is_there_is_deleted_after_the_model(database, tenant, dataset, run_job, write):
    job = run_job()
    child = given.submit_job(database, tenant, dataset, "knn_eval", model=job.id)
    with pytest.raises(JobInUse, match=r"delete the model first\. job_.* needs it") as error:
        write(job_deletion.delete, tenant, job.id)
    assert pointers(error) == [f"/models/{job.made_model_id}", f"/jobs/{child.id}"]
    write(steering.cancel, tenant, child.id)
    write(model_deletion.delete, tenant, job.made_model_id)
    write(job_deletion.delete, tenant, job.id)
    with database.reading() as session:
        shown = jobs.get(session, tenant, child.id)
    assert (shown.model_id, shown.parent_id) == (job.made_model_id, job.id)


def test_a_paused_job_keeps_the_job_that_it_waits_for(database, tenant, dataset, write):
    parent = given.submit_job(database, tenant, dataset)
    child = given.submit_job(database, tenant, dataset, "knn_eval", model=parent.id)
    write(steering.pause, tenant, child.id)
    write(steering.cancel, tenant, parent.id)
    with pytest.raises(JobInUse) as error:
        write(job_deletion.delete, tenant, parent.id)
    assert pointers(error) == [f"/jobs/{child.id}"]
    write(steering.cancel, tenant, child.id)
    write(job_deletion.delete, tenant, parent.id)
    with pytest.raises(ModelNotFound):
        write(steering.retry, tenant, child.id)
    with pytest.raises(ModelNotFound):
        write(models.find_source, tenant, parent.id)


def test_a_job_is_kept_while_an_index_of_it_is_built_and_no_longer(database, tenant, run_job, write, index):
    job = run_job("succeeded", EMBEDDINGS)
    write(model_deletion.delete, tenant, job.made_model_id)
    _, _, deleted = (index(job) for _ in range(3))
    given.finish_job(database, given.claim_job(database, "data"))
    given.finish_job(database, given.claim_job(database, "data"), "failed")
    building = index(job)
    with pytest.raises(JobInUse, match="is being built from it") as error:
        write(job_deletion.delete, tenant, job.id)
    assert pointers(error) == [f"/indexes/{deleted.id}", f"/indexes/{building.id}"]
    assert [fault["code"] for fault in error.value.errors] == ["index"] * 2
    write(registry.delete, tenant, deleted.id)
    given.finish_job(database, given.claim_job(database, "data"), "failed")
    write(job_deletion.delete, tenant, job.id)


def test_the_jobs_of_others_are_not_deleted(tenant, stranger, run_job, write):
    job = run_job("failed")
    for owner, name in ((stranger, job.id), (tenant, "job_x"), (tenant, "job_" + "0" * 26)):
        with pytest.raises(JobNotFound):
            write(job_deletion.delete, owner, name)


def test_counts_of_ends_and_attempts_do_not_fall_and_the_gauge_does(database, tenant, run_job, write):
    jobs_of = [run_job("failed"), run_job("cancelled"), run_job("failed")]
    with database.reading() as session:
        before = counts.count(session, tenant, 60)
    for job in jobs_of[:2]:
        write(job_deletion.delete, tenant, job.id)
    with database.reading() as session:
        after = counts.count(session, tenant, 60)
    assert (after.ended, after.attempts) == (before.ended, before.attempts)
    assert (before.jobs["pretrain", "failed"], after.jobs["pretrain", "failed"]) == (2, 1)
    assert after.jobs["pretrain", "cancelled"] == 0


def test_points_are_deleted_in_parts(database, tenant, run_job, write, count):
    job = run_job("failed")
    write(job_deletion.delete, tenant, job.id)
    left = []
    while write(points.delete_part, 8):
        left.append(count(Point))
    assert left == [12, 4, 0]
    assert count(Series) == 0


@on_postgresql
def test_a_job_that_is_retried_meanwhile_is_not_deleted(database, tenant, run_job):
    job = run_job("failed")
    with ThreadPoolExecutor() as threads, Session(database.engine) as retrying, Session(database.engine) as deleting:
        steering.retry(retrying, tenant, job.id)
        deleted = threads.submit(job_deletion.delete, deleting, tenant, job.id)
        with pytest.raises(TimeoutError):
            deleted.result(0.3)
        retrying.commit()
        with pytest.raises(JobNotEnded):
            deleted.result()


@on_postgresql
def test_a_job_that_is_deleted_meanwhile_is_not_found(database, tenant, run_job):
    job = run_job("failed")
    with ThreadPoolExecutor() as threads, Session(database.engine) as deleting, Session(database.engine) as retrying:
        job_deletion.delete(deleting, tenant, job.id)
        retried = threads.submit(steering.retry, retrying, tenant, job.id)
        with pytest.raises(TimeoutError):
            retried.result(0.3)
        deleting.commit()
        with pytest.raises(JobNotFound):
            retried.result()
    with database.reading() as session:
        assert session.scalars(select(Job.status).where(Job.id == job.id)).one() == "failed"


@on_postgresql
def test_a_job_of_which_an_index_is_created_meanwhile_is_not_deleted(database, tenant, run_job, write):
    job = run_job("succeeded", EMBEDDINGS)
    write(model_deletion.delete, tenant, job.made_model_id)
    with ThreadPoolExecutor() as threads, Session(database.engine) as indexing, Session(database.engine) as deleting:
        index_id = registry.create(indexing, tenant, job.id).id
        deleted = threads.submit(job_deletion.delete, deleting, tenant, job.id)
        with pytest.raises(TimeoutError):
            deleted.result(0.3)
        indexing.commit()
        with pytest.raises(JobInUse) as error:
            deleted.result()
        assert pointers(error) == [f"/indexes/{index_id}"]


@on_postgresql
def test_no_index_is_created_of_a_job_that_is_deleted_meanwhile(database, tenant, run_job, write):
    job = run_job("succeeded", EMBEDDINGS)
    write(model_deletion.delete, tenant, job.made_model_id)
    with ThreadPoolExecutor() as threads, Session(database.engine) as deleting, Session(database.engine) as indexing:
        job_deletion.delete(deleting, tenant, job.id)
        created = threads.submit(registry.create, indexing, tenant, job.id)
        with pytest.raises(TimeoutError):
            created.result(0.3)
        deleting.commit()
        with pytest.raises(JobNotFound):
            created.result()
