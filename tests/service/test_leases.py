"""Leases: claims, heartbeats, retries, and races between workers, keepers and clients."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select, update

from service import jobs, keys, leases, lifecycle, steering
from service.db.models import Job
from service.db.session import now
from service.db.statuses import HELD, TERMINAL
from service.errors import ParentFailed
from tests.service import given


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


def expire(database, job_id):
    """Let the job's lease expire."""
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=now() - 1))


def reap(database, attempts=3):
    with database.writing() as session:
        return leases.reap(session, leases.RetryPolicy(attempts))


def run_concurrently(*actions):
    """Run the actions concurrently; return what each returned or raised."""
    barrier = Barrier(len(actions))

    def act(action):
        barrier.wait()
        try:
            return action()
        except (leases.LeaseLost, ParentFailed) as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(act, actions))


def list_statuses(database, job_id):
    with database.reading() as session:
        return [change.data["status"] for change in jobs.transitions(session, job_id)]


def test_claims_are_ordered_by_priority_then_age(database, tenant, dataset):
    low, old, new, high = (given.submit_job(database, tenant, dataset, priority=n).id for n in (-1, 0, 0, 5))
    first, second = sorted([old, new])
    assert [given.claim_job(database).job_id for _ in range(4)] == [high, first, second, low]


def submit_for(database, owner, count, **fields):
    """Submit jobs of another owner's on a ready dataset of theirs; return their ids."""
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, owner).id
    dataset = given.create_ready_dataset(database, tenant)
    return [given.submit_job(database, tenant, dataset, **fields).id for _ in range(count)]


def test_owners_take_turns_whatever_their_priority_and_number_of_jobs(database):
    many = submit_for(database, "many", 4, priority=1000)
    few = submit_for(database, "few", 2, priority=-1000)
    claims = [given.claim_job(database) for _ in range(6)]
    assert [claim.job_id for claim in claims] == [many[0], few[0], many[1], few[1], many[2], many[3]]


def test_the_owner_of_the_fewest_running_jobs_is_served_then_the_one_who_has_waited_longest(database):
    first = submit_for(database, "first", 3)
    claims = [given.claim_job(database) for _ in range(2)]
    second = submit_for(database, "second", 3)
    assert [given.claim_job(database).job_id for _ in range(2)] == second[:2]
    for claim in claims:
        given.finish_job(database, claim)
    assert given.claim_job(database).job_id == first[2]  # runs none, and the other two


def test_an_ended_job_counts_as_a_turn(database):
    first = submit_for(database, "first", 2)
    second = submit_for(database, "second", 2)
    claimed = []
    for _ in range(4):
        claim = given.claim_job(database)
        claimed.append(claim.job_id)
        given.finish_job(database, claim)
    assert claimed == [first[0], second[0], first[1], second[1]]


def test_two_data_workers_are_never_both_of_one_owner_while_another_waits(database, tenant, stranger):
    for sha in ("aa" * 32, "bb" * 32):
        given.create_dataset(database, tenant, sha)
    given.create_dataset(database, stranger)
    claims = [given.claim_job(database, "data") for _ in range(2)]
    assert {claim.tenant_id for claim in claims} == {tenant, stranger}
    assert given.claim_job(database, "data").tenant_id == tenant  # no other owner waits


def test_concurrent_claims_serve_every_owner(database):
    owners = 4
    for owner in range(owners):
        submit_for(database, f"owner {owner}", owners)

    def claim():
        with database.writing() as session:
            return leases.claim(session, "train", "thread", 60).tenant_id

    assert len(set(run_concurrently(*[claim] * owners))) == owners


def test_owners_at_their_running_quota_are_skipped(database):
    first = submit_for(database, "first", 3)
    second = submit_for(database, "second", 1)

    def claim():
        with database.writing() as session:
            found = leases.claim(session, "train", "worker-1", 60, max_running=1)
        return found and found.job_id

    assert [claim() for _ in range(3)] == [first[0], second[0], None]
    assert given.get_job(database, first[1]).status == "queued"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer
def test_a_locked_row_is_skipped_for_the_next_owner(database):
    (locked,) = submit_for(database, "first", 1)
    (other,) = submit_for(database, "second", 1)
    with database.writing() as session:
        session.execute(select(Job).where(Job.id == locked).with_for_update())
        assert given.claim_job(database).job_id == other


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_frozen_claim_stops_no_other(database):
    first, second = submit_for(database, "first", 2)
    with database.writing() as frozen:
        assert leases.claim(frozen, "train", "frozen", 60).job_id == first
        assert given.claim_job(database).job_id == second


def test_claim_is_limited_to_its_queue(database, tenant, dataset):
    given.submit_job(database, tenant, dataset)
    with database.writing() as session:
        assert leases.claim(session, "data", "worker-1", 60) is None
        assert leases.count_pending(session) == {"train": 1}


def test_claim_has_config_paths_and_attempt(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    assert claim.config == given.get_job(database, job.id).config
    assert claim.config["kind"] == "pretrain"
    assert (claim.dataset_path, claim.upload, claim.model_path) == (f"datasets/{dataset}/a1", None, None)
    assert claim.provenance["model"] is None
    assert (claim.attempt, claim.checkpoints) == (1, ())
    shown = given.get_job(database, job.id)
    assert (shown.status, shown.worker, shown.attempt) == ("running", "worker-1", 1)
    assert shown.started_at is not None


def test_claim_has_provenance(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset, name="Gulls", metadata={"licence": "CC BY 4.0"})
    claim = given.claim_job(database)
    data = {"id": dataset, "name": "pictures", "licence": "CC BY 4.0"}
    assert claim.provenance == {"job": parent.id, "name": "Gulls", "dataset": data, "model": None}
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    given.submit_job(database, tenant, dataset, model=parent.id)
    start = given.claim_job(database).provenance["model"]
    assert start == {"id": given.get_job(database, parent.id).made_model_id, "name": "Gulls"}


def test_threads_claim_each_job_exactly_once(database, tenant, dataset):
    submitted = {given.submit_job(database, tenant, dataset).id for _ in range(24)}

    def claim_all():
        mine = []
        while True:
            with database.writing() as session:
                claim = leases.claim(session, "train", "thread", 60)
            if claim is None:
                return mine
            mine.append(claim.job_id)

    claimed = [job for mine in run_concurrently(*[claim_all] * 8) for job in mine]
    assert Counter(claimed) == Counter(submitted)


_CLAIM_ALL = """
import sys
from service import leases
from service.db.session import Database

database = Database(sys.argv[1])
claim = True
while claim:
    with database.writing() as session:
        claim = leases.claim(session, "train", "process", 60)
    if claim:
        print(claim.job_id)
"""


def test_processes_claim_each_job_exactly_once(database, database_url, tenant, dataset):
    submitted = {given.submit_job(database, tenant, dataset).id for _ in range(24)}
    command = [sys.executable, "-c", _CLAIM_ALL, database_url]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    claimed = [line for worker in workers for line in worker.communicate(timeout=60)[0].split()]
    assert Counter(claimed) == Counter(submitted)
    assert [worker.returncode for worker in workers] == [0, 0, 0]


def test_renewed_lease_is_not_reap(database, tenant, dataset):
    given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    expire(database, claim.job_id)
    assert given.record_events(database, claim) == "run"
    assert reap(database) == []


def test_writes_after_an_expired_lease_raise_lease_lost(database, tenant, dataset):
    given.submit_job(database, tenant, dataset)
    lost = given.claim_job(database)
    expire(database, lost.job_id)
    assert reap(database) == [lost.job_id]
    second = given.claim_job(database)
    assert (second.job_id, second.attempt) == (lost.job_id, 2)
    for write in (
        lambda: given.record_events(database, lost),
        lambda: given.record_events(database, lost, given.metrics(1)),
        lambda: given.finish_job(database, lost),
        lambda: given.release_job(database, lost),
    ):
        with pytest.raises(leases.LeaseLost):
            write()
    shown = given.get_job(database, lost.job_id)
    assert (shown.status, shown.last_point) == ("running", 0)
    assert list_statuses(database, lost.job_id) == ["queued", "running", "queued", "running"]


def test_attempt_resumes_from_the_highest_step_with_the_resolved_config(database, tenant, dataset):
    given.submit_job(database, tenant, dataset)
    first = given.claim_job(database)
    given.record_events(database, first, given.events.Resolved({**first.config, "epochs": 7}), given.checkpoint(5))
    given.record_events(database, first, given.checkpoint(10))
    given.release_job(database, first)
    second = given.claim_job(database)
    assert second.config["epochs"] == 7
    assert second.checkpoints[0].path == f"jobs/{first.job_id}/a1/checkpoint-000000010.pt"
    assert [one.step for one in second.checkpoints] == [10, 5]


def test_checkpoint_rows_are_limited_to_keep(database, tenant, dataset):
    given.submit_job(database, tenant, dataset, config={**given.PRETRAIN, "checkpoints": {"keep": 3}})
    claim = given.claim_job(database)
    given.record_events(database, claim, *(given.checkpoint(step) for step in range(1, 7)))
    with database.reading() as session:
        assert [one.step for one in jobs.checkpoints(session, claim.job_id)] == [6, 5, 4]


def test_checkpoints_of_later_attempts_are_kept(database, tenant, dataset):
    given.submit_job(database, tenant, dataset, config={**given.PRETRAIN, "checkpoints": {"keep": 2}})
    first = given.claim_job(database)
    given.record_events(database, first, given.checkpoint(9), given.checkpoint(10))
    given.release_job(database, first)
    second = given.claim_job(database)  # the files are damaged: it starts again
    given.record_events(database, second, given.checkpoint(7), given.checkpoint(8))
    given.release_job(database, second)
    assert [one.step for one in given.claim_job(database).checkpoints] == [8, 7]


def test_deleted_checkpoint_is_not_claimed(database, tenant, dataset):
    given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.checkpoint(5), given.checkpoint(10))
    damaged = f"jobs/{claim.job_id}/a1/checkpoint-000000010.pt"
    with database.writing() as session:
        leases.delete_checkpoint(session, claim.job_id, claim.attempt, damaged, 60)
    given.release_job(database, claim)
    again = given.claim_job(database)
    assert [one.step for one in again.checkpoints] == [5]
    with database.writing() as session, pytest.raises(leases.LeaseLost):
        leases.delete_checkpoint(session, claim.job_id, claim.attempt, damaged, 60)


def test_three_attempts_without_progress_fail_the_job(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    assert [given.release_job(database, given.claim_job(database)) for _ in range(3)] == ["queued", "queued", "failed"]
    error = given.get_job(database, job.id).error
    assert error["code"] == "no_progress"
    assert "killed by signal 9" in error["detail"]


def test_expired_leases_count_as_attempts(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    for _ in range(3):
        given.claim_job(database)
        expire(database, job.id)
        reap(database)
    assert given.get_job(database, job.id).error["code"] == "no_progress"


def test_retry_delay_doubles(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    for pause in (60, 120):
        given.release_job(database, given.claim_job(database), policy=leases.RetryPolicy(seconds=60))
        assert f"Retried in {pause} s." in given.get_job(database, job.id).status_detail
        with database.writing() as session:
            assert leases.claim(session, "train", "worker-1", 60) is None
            assert leases.count_pending(session) == {}
        with database.writing() as session:
            left = select(Job.lease_until - now()).where(Job.id == job.id)
            assert pause - 30 < session.execute(left).scalar_one() <= pause
        expire(database, job.id)
        with database.reading() as session:
            assert leases.count_pending(session) == {"train": 1}
        assert reap(database) == []  # it is queued, not leased


def test_waiting_release_is_retried_indefinitely_with_a_constant_delay(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    for _ in range(5):
        claim, policy = given.claim_job(database), leases.RetryPolicy(seconds=60)
        assert given.release_job(database, claim, counts=False, waits=True, policy=policy) == "queued"
        with database.writing() as session:
            assert leases.claim(session, "train", "worker-1", 60) is None
        assert "Retried in 60 s." in given.get_job(database, job.id).status_detail
        expire(database, job.id)


def test_release_of_a_pausing_job_pauses_it(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == job.id).values(status="pausing"))
    assert given.release_job(database, claim, policy=leases.RetryPolicy(seconds=60)) == "paused"
    paused = given.get_job(database, job.id)
    assert (paused.lease_until, paused.status_detail) == (None, "killed by signal 9")


def test_retry_delay_is_bounded(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    for _ in range(8):
        given.release_job(database, given.claim_job(database), policy=leases.RetryPolicy(attempts=100, seconds=1))
        expire(database, job.id)
    assert "Retried in 64 s." in given.get_job(database, job.id).status_detail


def test_no_retry_delay_after_progress_or_worker_stop(database, tenant, dataset):
    given.submit_job(database, tenant, dataset)
    policy = leases.RetryPolicy(seconds=60)
    given.release_job(database, given.claim_job(database), counts=False, policy=policy)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.metrics(1))
    given.release_job(database, claim, policy=policy)
    given.claim_job(database)


@pytest.mark.parametrize("progress", [given.metrics(1), given.checkpoint(1)])
def test_progress_resets_the_fruitless_count(database, tenant, dataset, progress):
    job = given.submit_job(database, tenant, dataset)
    for _ in range(2):
        given.release_job(database, given.claim_job(database))
    third = given.claim_job(database)
    given.record_events(database, third, progress)
    assert given.release_job(database, third) == "queued"
    assert given.get_job(database, job.id).fruitless == 0
    replay = given.claim_job(database)
    given.record_events(database, replay, progress)  # replayed points are no progress
    given.release_job(database, replay)
    assert given.get_job(database, job.id).fruitless == 1


def test_worker_stop_does_not_count(database, tenant, dataset):
    given.submit_job(database, tenant, dataset)
    for _ in range(5):
        assert given.release_job(database, given.claim_job(database), counts=False) == "queued"


def test_release_of_a_cancelling_job_cancels_it(database, tenant, dataset):
    for give_back in (given.release_job, lambda database, claim: (expire(database, claim.job_id), reap(database))):
        job = given.submit_job(database, tenant, dataset)
        claim = given.claim_job(database)
        with database.writing() as session:
            steering.cancel(session, tenant, job.id)
        give_back(database, claim)
        assert given.get_job(database, job.id).status == "cancelled"


@pytest.mark.parametrize("ending", TERMINAL)
def test_terminal_status_is_final(database, tenant, dataset, ending):
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.finish_job(database, claim, ending, {"code": "diverged", "detail": "NaN."} if ending == "failed" else None)
    for write in (given.release_job, given.finish_job, given.record_events):
        with pytest.raises(leases.LeaseLost):
            write(database, claim)
    expire(database, job.id)
    assert reap(database) == []
    with database.writing() as session:
        assert steering.cancel(session, tenant, job.id).status == ending
        assert leases.claim(session, "train", "worker-1", 60) is None
        assert lifecycle.resolve_waiting(session) == 0
    assert list_statuses(database, job.id) == ["queued", "running", ending]


def test_failed_job_is_not_retried(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    error = {"code": "diverged", "detail": "The loss is not a number."}
    given.finish_job(database, given.claim_job(database), "failed", error)
    shown = given.get_job(database, job.id)
    assert (shown.status, shown.error, shown.status_detail) == ("failed", error, "The loss is not a number.")


def test_concurrent_cancel_and_claim(database, tenant, dataset):
    def cancel(job_id):
        with database.writing() as session:
            return steering.cancel(session, tenant, job_id).status

    def claim():
        with database.writing() as session:
            return leases.claim(session, "train", "worker-1", 60)

    for _ in range(12):
        job = given.submit_job(database, tenant, dataset)
        claimed, answer = run_concurrently(claim, lambda job=job: cancel(job.id))
        if claimed is None:
            assert answer == given.get_job(database, job.id).status == "cancelled"
            assert list_statuses(database, job.id) == ["queued", "cancelled"]
        else:
            assert answer == given.get_job(database, job.id).status == "cancelling"
            given.finish_job(database, claimed, "cancelled")


def test_concurrent_cancel_and_finish(database, tenant, dataset):
    def cancel(job_id):
        with database.writing() as session:
            return steering.cancel(session, tenant, job_id).status

    for _ in range(12):
        job = given.submit_job(database, tenant, dataset)
        claim = given.claim_job(database)
        _, answer = run_concurrently(
            lambda claim=claim: given.finish_job(database, claim), lambda job=job: cancel(job.id)
        )
        assert given.get_job(database, job.id).status == "succeeded"
        assert answer in ("succeeded", "cancelling")
        assert list_statuses(database, job.id)[-1] == "succeeded"


def test_concurrent_reap_and_write(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    for step in range(12):
        claim = given.claim_job(database)
        expire(database, job.id)
        write = lambda claim=claim, step=step: given.record_events(database, claim, given.metrics(step))  # noqa: E731
        taken, signal = run_concurrently(lambda: reap(database, 100), write)
        if taken:
            assert isinstance(signal, leases.LeaseLost)
        else:
            assert signal == "run"
            given.release_job(database, claim)


def test_concurrent_reaps(database, tenant, dataset):
    ids = [given.submit_job(database, tenant, dataset).id for _ in range(6)]
    for _ in ids:
        given.claim_job(database, lease_seconds=-1)
    taken = [job for one in run_concurrently(*[lambda: reap(database)] * 4) for job in one]
    assert Counter(taken) == Counter(ids)


def test_job_submitted_while_its_parent_finishes_is_queued(database, tenant, dataset):
    for _ in range(8):
        parent = given.submit_job(database, tenant, dataset)
        claim = given.claim_job(database)
        given.record_events(database, claim, given.model())
        submit = lambda parent=parent: given.submit_job(  # noqa: E731
            database, tenant, dataset, "knn_eval", model=parent.id
        )
        _, child = run_concurrently(lambda claim=claim: given.finish_job(database, claim), submit)
        assert given.get_job(database, child.id).status == "queued"
        given.finish_job(database, given.claim_job(database))


def test_resolve_waiting_fails_orphans(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    child = given.submit_job(database, tenant, dataset, model=parent.id)
    grandchild = given.submit_job(database, tenant, dataset, "knn_eval", model=child.id)
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == parent.id).values(status="cancelled"))
    with database.writing() as session:
        assert lifecycle.resolve_waiting(session) == 1
    for orphan in (child, grandchild):
        assert given.get_job(database, orphan.id).error["code"] == "parent_failed"


def test_no_lease_after_the_end(database, tenant, dataset):
    for ending in TERMINAL:
        given.submit_job(database, tenant, dataset)
        given.finish_job(database, given.claim_job(database), ending)
    with database.reading() as session:
        assert session.scalars(select(Job).where(Job.status.in_(HELD) | Job.lease_until.is_not(None))).all() == []
