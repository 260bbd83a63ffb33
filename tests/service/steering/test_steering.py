"""Steering: pause, resume, retry and change of jobs, and merged configs."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service import datasets, jobs, leases, metrics, steering
from service.db.models import Artifact, Checkpoint, Job, Point, Series
from service.deletion import points
from service.errors import (
    DatasetInUse,
    DatasetNotFound,
    InvalidConfig,
    InvalidRequest,
    JobHasEnded,
    JobHasStarted,
    JobHasSucceeded,
    JobNotFound,
    ParentFailed,
)
from ssl_core import events
from tests.service import given

STARTED = 100


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


def steer(database, verb, tenant, job_id, *arguments):
    with database.writing() as session:
        return verb(session, tenant, job_id, *arguments).status


def statuses(database, job_id):
    with database.reading() as session:
        return [change.data["status"] for change in jobs.transitions(session, job_id)]


def count(database, table, *conditions):
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table).where(*conditions))


def test_a_queued_job_is_paused_and_resumed_and_meanwhile_not_claimed(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    assert [steer(database, steering.pause, tenant, job.id) for _ in range(2)] == ["paused"] * 2
    with database.writing() as session:
        assert leases.claim(session, "train", "worker-1", 60) is None
        assert leases.count_pending(session) == {}
    assert [steer(database, steering.resume, tenant, job.id) for _ in range(2)] == ["queued"] * 2
    assert given.claim_job(database).job_id == job.id
    assert statuses(database, job.id) == ["queued", "paused", "queued", "running"]


def test_a_running_job_is_paused_by_its_worker_and_goes_on_from_its_checkpoint(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.checkpoint(10))
    assert steer(database, steering.pause, tenant, job.id) == "pausing"
    assert given.record_events(database, claim) == "pause"
    assert given.release_job(database, claim, counts=False) == "paused"
    assert steer(database, steering.resume, tenant, job.id) == "queued"
    assert [found.step for found in given.claim_job(database).checkpoints] == [10]


def test_a_pause_that_is_withdrawn_before_the_worker_has_stopped_leaves_the_job_running(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    steer(database, steering.pause, tenant, job.id)
    assert steer(database, steering.resume, tenant, job.id) == "running"
    assert given.record_events(database, claim) == "run"
    assert given.release_job(database, claim, counts=False) == "queued"  # if it had begun to stop


def test_a_pausing_job_may_be_cancelled_or_end(database, tenant, dataset):
    first, second = (given.submit_job(database, tenant, dataset) for _ in range(2))
    for job, ending in ((first, "cancelled"), (second, "succeeded")):
        claim = given.claim_job(database)
        steer(database, steering.pause, tenant, job.id)
        if ending == "cancelled":
            assert steer(database, steering.cancel, tenant, job.id) == "cancelling"
            with pytest.raises(JobHasEnded):
                steer(database, steering.pause, tenant, job.id)
        given.finish_job(database, claim, ending)
        for verb in (steering.pause, steering.resume):
            with pytest.raises(JobHasEnded):
                steer(database, verb, tenant, job.id)
        assert given.get_job(database, job.id).status == ending


def test_an_abandoned_pausing_job_is_paused(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    given.claim_job(database, lease_seconds=-1)
    steer(database, steering.pause, tenant, job.id)
    with database.writing() as session:
        assert leases.reap(session) == [job.id]
    assert given.get_job(database, job.id).status == "paused"


@pytest.mark.parametrize("ending", ["succeeded", "failed", None])
def test_a_paused_job_waits_again_for_its_parent_or_has_its_model(database, tenant, dataset, ending):
    parent = given.submit_job(database, tenant, dataset)
    child = given.submit_job(database, tenant, dataset, "knn_eval", model=parent.id)
    assert steer(database, steering.pause, tenant, child.id) == "paused"
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model())
    if ending is not None:
        given.finish_job(database, claim, ending)
    assert given.get_job(database, child.id).status == "paused"
    if ending == "failed":
        with pytest.raises(ParentFailed):
            steer(database, steering.resume, tenant, child.id)
        return
    assert steer(database, steering.resume, tenant, child.id) == ("queued" if ending else "waiting")
    if ending is None:
        given.finish_job(database, claim)
    assert given.get_job(database, child.id).status == "queued"
    assert given.claim_job(database).model_path is not None


def failed_job(database, tenant, dataset, ending="failed"):
    """Return a job that has ended at step 20, with a checkpoint at 10 and an artifact."""
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    artifact = events.Artifact("loss.png", "loss.png", "image/png", given.SHA, 10)
    points = [given.metrics(step) for step in range(1, 21)]
    given.record_events(database, claim, *points, given.checkpoint(10), artifact)
    if ending == "cancelled":
        steer(database, steering.cancel, tenant, job.id)
    given.finish_job(database, claim, ending, {"code": "gone", "detail": "It is gone."} if ending == "failed" else None)
    return job


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_a_retried_job_goes_on_from_its_checkpoint_with_its_metrics(database, tenant, dataset, ending):
    job = failed_job(database, tenant, dataset, ending)
    assert [steer(database, steering.retry, tenant, job.id) for _ in range(2)] == ["queued"] * 2
    shown = given.get_job(database, job.id)
    assert (shown.error, shown.finished_at, shown.fruitless, shown.run_seconds) == (None, None, 0, 0)
    claim = given.claim_job(database)
    assert (claim.attempt, [found.step for found in claim.checkpoints]) == (2, [10])
    given.record_events(database, claim, *(given.metrics(step) for step in range(11, 31)))
    given.finish_job(database, claim)
    with database.reading() as session:
        (series,) = metrics.query(session, session.get_one(Job, job.id), None, 0, 1000)["series"]
    assert series["step"] == list(range(1, 31))
    with pytest.raises(JobHasSucceeded):
        steer(database, steering.retry, tenant, job.id)


def test_a_job_retried_from_the_start_has_no_checkpoints_metrics_and_artifacts(database, tenant, dataset):
    job, other = failed_job(database, tenant, dataset), failed_job(database, tenant, dataset)
    before = given.get_job(database, job.id).last_point
    steer(database, steering.retry, tenant, job.id, "start")
    assert given.get_job(database, job.id).last_point > before  # an ETag of before is outdated
    for table in (Checkpoint, Artifact, Series):
        assert count(database, table, table.job_id == job.id) == 0
        assert count(database, table, table.job_id == other.id) == 1
    delete_points(database)
    assert count(database, Point) == 20
    claim = given.claim_job(database)
    given.record_events(database, claim, given.metrics(1))
    assert count(database, Point) == 21


def delete_points(database):
    while True:
        with database.writing() as session:
            if not points.delete_part(session, 7):
                return


def test_a_retry_needs_the_dataset_and_the_model(database, tenant, dataset):
    job = failed_job(database, tenant, dataset)
    with database.writing() as session:
        datasets.delete(session, tenant, dataset)
    with pytest.raises(DatasetNotFound):
        steer(database, steering.retry, tenant, job.id)
    assert given.get_job(database, job.id).status == "failed"


def test_the_child_of_a_retried_job_is_retried_after_it(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    child = given.submit_job(database, tenant, dataset, "knn_eval", model=parent.id)
    steer(database, steering.cancel, tenant, parent.id)
    assert given.get_job(database, child.id).status == "failed"
    with pytest.raises(ParentFailed):
        steer(database, steering.retry, tenant, child.id)
    steer(database, steering.retry, tenant, parent.id)
    assert steer(database, steering.retry, tenant, child.id) == "waiting"
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    assert given.get_job(database, child.id).status == "queued"


def test_an_old_attempt_of_a_retried_job_writes_nothing(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.finish_job(database, claim, "failed")
    steer(database, steering.retry, tenant, job.id)
    for _ in range(2):
        with pytest.raises(leases.LeaseLost):
            given.record_events(database, claim, given.metrics(1))
        given.claim_job(database) if given.get_job(database, job.id).status == "queued" else None


def test_fields_are_changed_and_the_priority_only_before_the_job_runs(database, tenant, dataset):
    job, other = (given.submit_job(database, tenant, dataset, name="a", metadata={"k": "v"}) for _ in range(2))
    steer(database, steering.change, tenant, other.id, {"priority": 5})
    claim = given.claim_job(database)
    assert claim.job_id == other.id
    steer(database, steering.change, tenant, other.id, {"name": None, "metadata": {"x": "y"}, "priority": 5})
    shown = given.get_job(database, other.id)
    assert (shown.name, shown.user_metadata, shown.priority) == (None, {"x": "y"}, 5)
    with pytest.raises(JobHasStarted) as raised:
        steer(database, steering.change, tenant, other.id, {"name": "b", "priority": 6})
    assert [fault["pointer"] for fault in raised.value.errors] == ["/priority"]
    for fields, error in (({"priority": 1001}, InvalidConfig), ({"name": " "}, InvalidRequest)):
        with pytest.raises(error):
            steer(database, steering.change, tenant, job.id, fields)
    assert given.get_job(database, job.id).name == "a"


def test_the_jobs_of_others_are_not_steered(database, tenant, stranger, dataset):
    job = given.submit_job(database, tenant, dataset)
    for verb in (steering.pause, steering.resume, steering.retry, steering.cancel):
        with pytest.raises(JobNotFound):
            steer(database, verb, stranger, job.id)
    with pytest.raises(JobNotFound):
        steer(database, steering.change, stranger, job.id, {})


def test_the_time_for_which_a_job_has_run_is_summed_over_attempts(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset, max_runtime=500)
    for attempt in range(1, 3):
        claim = given.claim_job(database)
        assert claim.seconds_left == pytest.approx(500 - STARTED * (attempt - 1), abs=10)
        with database.writing() as session:
            session.get_one(Job, job.id).claimed_at -= STARTED
        given.release_job(database, claim, counts=False)
        assert given.get_job(database, job.id).run_seconds == pytest.approx(STARTED * attempt, abs=10)
    assert given.claim_job(database).seconds_left == pytest.approx(300, abs=20)


@pytest.mark.parametrize("ended", [leases.reap, lambda session: leases.requeue_held(session, "Restored.")])
def test_an_outage_does_not_count_as_time_for_which_a_job_has_run(database, tenant, dataset, ended):
    job = given.submit_job(database, tenant, dataset, max_runtime=500)
    given.claim_job(database)
    with database.writing() as session:
        row = session.get_one(Job, job.id)
        row.claimed_at, row.lease_until = row.claimed_at - 100_000, row.lease_until - 99_900
    with database.writing() as session:
        assert ended(session) == [job.id]
    assert given.get_job(database, job.id).run_seconds == pytest.approx(160, abs=10)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_dataset_of_a_job_that_fails_while_it_is_retried_is_kept(database, tenant, dataset):
    job, claim = given.submit_job(database, tenant, dataset), given.claim_job(database)
    with ThreadPoolExecutor() as threads, Session(database.engine) as finishing, Session(database.engine) as retrying:
        leases.finish(finishing, claim.job_id, claim.attempt, "failed", {"code": "gone", "detail": "It is gone."})
        retried = threads.submit(lambda: steering.retry(retrying, tenant, job.id).status)
        with pytest.raises(TimeoutError):
            retried.result(0.3)  # it waits for the end of the job
        finishing.commit()
        assert retried.result() == "queued"
        deleted = threads.submit(lambda: delete_dataset(database, tenant, dataset))
        with pytest.raises(TimeoutError):
            deleted.result(0.3)
        retrying.commit()
        with pytest.raises(DatasetInUse):
            deleted.result()


def delete_dataset(database, tenant, dataset):
    with database.writing() as session:
        datasets.delete(session, tenant, dataset)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"a": 1, "method": {"name": "x", "t": 2}, "views": [{"n": 1}]}),
        ({"a": None, "b": 3}, {"b": 3, "method": {"name": "x", "t": 2}, "views": [{"n": 1}]}),
        ({"method": {"t": 5}}, {"a": 1, "method": {"name": "x", "t": 5}, "views": [{"n": 1}]}),
        ({"method": {"name": "x", "u": 1}}, {"a": 1, "method": {"name": "x", "t": 2, "u": 1}, "views": [{"n": 1}]}),
        ({"method": {"name": "y"}}, {"a": 1, "method": {"name": "y"}, "views": [{"n": 1}]}),
        ({"method": "auto"}, {"a": 1, "method": "auto", "views": [{"n": 1}]}),
        ({"views": [{"m": 2}]}, {"a": 1, "method": {"name": "x", "t": 2}, "views": [{"m": 2}]}),
    ],
)
def test_configs_are_merged(changes, wanted):
    config = {"a": 1, "method": {"name": "x", "t": 2}, "views": [{"n": 1}]}
    assert steering.merge_config(config, changes) == wanted
    assert config == {"a": 1, "method": {"name": "x", "t": 2}, "views": [{"n": 1}]}
