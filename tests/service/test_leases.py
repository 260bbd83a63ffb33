"""Leases: a job is one runner's at a time, and whoever has lost it can write nothing more."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select, update

from service import jobs, leases, lifecycle
from service.db.models import Job
from service.db.session import now
from service.db.statuses import HELD, TERMINAL
from service.errors import ParentFailed
from tests.service import given


@pytest.fixture
def dataset(database, tenant):
    return given.ready(database, tenant)


def expire(database, job_id):
    """The runner has been silent for longer than its lease."""
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=now() - 1))


def reaped(database, attempts=3):
    with database.writing() as session:
        return leases.reap(session, leases.RetryPolicy(attempts))


def together(*actions):
    """Run the actions at the same time; return what each returned or raised."""
    barrier = Barrier(len(actions))

    def act(action):
        barrier.wait()
        try:
            return action()
        except (leases.LeaseLost, ParentFailed) as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(act, actions))


def statuses(database, job_id):
    with database.reading() as session:
        return [change.data["status"] for change in jobs.transitions(session, job_id)]


def test_the_highest_priority_is_claimed_first_and_the_oldest_among_equals(database, tenant, dataset):
    low, old, new, high = (given.submitted(database, tenant, dataset, priority=n).id for n in (-1, 0, 0, 5))
    first, second = sorted([old, new])
    assert [given.claimed(database).job_id for _ in range(4)] == [high, first, second, low]


def test_a_queue_gives_only_its_own_jobs(database, tenant, dataset):
    given.submitted(database, tenant, dataset)
    with database.writing() as session:
        assert leases.claim(session, "data", "worker-1", 60) is None
        assert leases.count_pending(session) == {"train": 1}


def test_a_claim_says_all_that_a_runner_needs(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    assert claim.config == given.seen(database, job.id).config
    assert claim.config["kind"] == "pretrain"
    assert (claim.dataset_path, claim.upload, claim.model_path) == (f"datasets/{dataset}/a1", None, None)
    assert claim.provenance["model"] is None
    assert (claim.attempt, claim.checkpoints) == (1, ())
    shown = given.seen(database, job.id)
    assert (shown.status, shown.worker, shown.attempt) == ("running", "worker-1", 1)
    assert shown.started_at is not None


def test_a_claim_tells_where_the_model_to_be_comes_from(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset, name="Gulls", metadata={"licence": "CC BY 4.0"})
    claim = given.claimed(database)
    data = {"id": dataset, "name": "pictures", "licence": "CC BY 4.0"}
    assert claim.provenance == {"job": parent.id, "name": "Gulls", "dataset": data, "model": None}
    given.recorded(database, claim, given.model())
    given.finished(database, claim)
    given.submitted(database, tenant, dataset, model=parent.id)
    start = given.claimed(database).provenance["model"]
    assert start == {"id": given.seen(database, parent.id).made_model_id, "name": "Gulls"}


def test_threads_claim_each_job_exactly_once(database, tenant, dataset):
    submitted = {given.submitted(database, tenant, dataset).id for _ in range(24)}

    def claim_all():
        mine = []
        while True:
            with database.writing() as session:
                claim = leases.claim(session, "train", "thread", 60)
            if claim is None:
                return mine
            mine.append(claim.job_id)

    claimed = [job for mine in together(*[claim_all] * 8) for job in mine]
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
    submitted = {given.submitted(database, tenant, dataset).id for _ in range(24)}
    command = [sys.executable, "-c", _CLAIM_ALL, database_url]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    claimed = [line for worker in workers for line in worker.communicate(timeout=60)[0].split()]
    assert Counter(claimed) == Counter(submitted)
    assert [worker.returncode for worker in workers] == [0, 0, 0]


def test_a_lease_that_is_renewed_is_not_taken_back(database, tenant, dataset):
    given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    expire(database, claim.job_id)
    assert given.recorded(database, claim) == "run"
    assert reaped(database) == []


def test_a_runner_that_was_silent_loses_its_job_and_can_write_nothing_more(database, tenant, dataset):
    given.submitted(database, tenant, dataset)
    lost = given.claimed(database)
    expire(database, lost.job_id)
    assert reaped(database) == [lost.job_id]
    second = given.claimed(database)
    assert (second.job_id, second.attempt) == (lost.job_id, 2)
    for write in (
        lambda: given.recorded(database, lost),
        lambda: given.recorded(database, lost, given.metrics(1)),
        lambda: given.finished(database, lost),
        lambda: given.released(database, lost),
    ):
        with pytest.raises(leases.LeaseLost):
            write()
    shown = given.seen(database, lost.job_id)
    assert (shown.status, shown.last_point) == ("running", 0)
    assert statuses(database, lost.job_id) == ["queued", "running", "queued", "running"]


def test_an_attempt_goes_on_from_the_furthest_checkpoint_and_the_resolved_config(database, tenant, dataset):
    given.submitted(database, tenant, dataset)
    first = given.claimed(database)
    given.recorded(database, first, given.events.Resolved({**first.config, "epochs": 7}), given.checkpoint(5))
    given.recorded(database, first, given.checkpoint(10))
    given.released(database, first)
    second = given.claimed(database)
    assert second.config["epochs"] == 7
    assert second.checkpoints[0].path == f"jobs/{first.job_id}/a1/checkpoint-000000010.pt"
    assert [one.step for one in second.checkpoints] == [10, 5]


def test_as_many_checkpoints_are_remembered_as_the_trainer_keeps(database, tenant, dataset):
    given.submitted(database, tenant, dataset, config={**given.PRETRAIN, "checkpoints": {"keep": 3}})
    claim = given.claimed(database)
    given.recorded(database, claim, *(given.checkpoint(step) for step in range(1, 7)))
    with database.reading() as session:
        assert [one.step for one in jobs.checkpoints(session, claim.job_id)] == [6, 5, 4]


def test_after_falling_back_the_later_attempts_checkpoints_are_the_ones_kept(database, tenant, dataset):
    given.submitted(database, tenant, dataset, config={**given.PRETRAIN, "checkpoints": {"keep": 2}})
    first = given.claimed(database)
    given.recorded(database, first, given.checkpoint(9), given.checkpoint(10))
    given.released(database, first)
    second = given.claimed(database)  # finds the files damaged and starts again
    given.recorded(database, second, given.checkpoint(7), given.checkpoint(8))
    given.released(database, second)
    assert [one.step for one in given.claimed(database).checkpoints] == [8, 7]


def test_a_disowned_checkpoint_is_not_offered_again(database, tenant, dataset):
    given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    given.recorded(database, claim, given.checkpoint(5), given.checkpoint(10))
    damaged = f"jobs/{claim.job_id}/a1/checkpoint-000000010.pt"
    with database.writing() as session:
        leases.delete_checkpoint(session, claim.job_id, claim.attempt, damaged, 60)
    given.released(database, claim)
    again = given.claimed(database)
    assert [one.step for one in again.checkpoints] == [5]
    with database.writing() as session, pytest.raises(leases.LeaseLost):
        leases.delete_checkpoint(session, claim.job_id, claim.attempt, damaged, 60)


def test_three_fruitless_attempts_in_a_row_end_the_job(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    assert [given.released(database, given.claimed(database)) for _ in range(3)] == ["queued", "queued", "failed"]
    error = given.seen(database, job.id).error
    assert error["code"] == "no_progress"
    assert "killed by signal 9" in error["detail"]


def test_expired_leases_count_as_attempts_too(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    for _ in range(3):
        given.claimed(database)
        expire(database, job.id)
        reaped(database)
    assert given.seen(database, job.id).error["code"] == "no_progress"


def test_an_attempt_without_progress_is_followed_by_a_pause_that_doubles(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    for pause in (60, 120):
        given.released(database, given.claimed(database), policy=leases.RetryPolicy(seconds=60))
        assert f"Retried in {pause} s." in given.seen(database, job.id).status_detail
        with database.writing() as session:
            assert leases.claim(session, "train", "worker-1", 60) is None
            assert leases.count_pending(session) == {}
        with database.writing() as session:
            left = select(Job.lease_until - now()).where(Job.id == job.id)
            assert pause - 30 < session.execute(left).scalar_one() <= pause
        expire(database, job.id)
        with database.reading() as session:
            assert leases.count_pending(session) == {"train": 1}
        assert reaped(database) == []  # it is queued, not held


def test_a_job_that_waits_for_something_rests_equally_long_each_time_and_is_never_given_up(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    for _ in range(5):
        claim, policy = given.claimed(database), leases.RetryPolicy(seconds=60)
        assert given.released(database, claim, counts=False, waits=True, policy=policy) == "queued"
        with database.writing() as session:
            assert leases.claim(session, "train", "worker-1", 60) is None
        assert "Retried in 60 s." in given.seen(database, job.id).status_detail
        expire(database, job.id)


def test_a_job_that_was_asked_to_pause_is_paused_and_nothing_more(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == job.id).values(status="pausing"))
    assert given.released(database, claim, policy=leases.RetryPolicy(seconds=60)) == "paused"
    paused = given.seen(database, job.id)
    assert (paused.lease_until, paused.status_detail) == (None, "killed by signal 9")


def test_the_pause_does_not_double_for_ever(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    for _ in range(8):
        given.released(database, given.claimed(database), policy=leases.RetryPolicy(attempts=100, seconds=1))
        expire(database, job.id)
    assert "Retried in 64 s." in given.seen(database, job.id).status_detail


def test_after_progress_or_a_stop_of_ours_there_is_no_pause(database, tenant, dataset):
    given.submitted(database, tenant, dataset)
    policy = leases.RetryPolicy(seconds=60)
    given.released(database, given.claimed(database), counts=False, policy=policy)
    claim = given.claimed(database)
    given.recorded(database, claim, given.metrics(1))
    given.released(database, claim, policy=policy)
    given.claimed(database)


@pytest.mark.parametrize("progress", [given.metrics(1), given.checkpoint(1)])
def test_progress_forgives_the_fruitless_attempts_before_it(database, tenant, dataset, progress):
    job = given.submitted(database, tenant, dataset)
    for _ in range(2):
        given.released(database, given.claimed(database))
    third = given.claimed(database)
    given.recorded(database, third, progress)
    assert given.released(database, third) == "queued"
    assert given.seen(database, job.id).fruitless == 0
    replay = given.claimed(database)
    given.recorded(database, replay, progress)  # what was there before is no progress
    given.released(database, replay)
    assert given.seen(database, job.id).fruitless == 1


def test_a_stop_of_ours_does_not_count(database, tenant, dataset):
    given.submitted(database, tenant, dataset)
    for _ in range(5):
        assert given.released(database, given.claimed(database), counts=False) == "queued"


def test_a_job_given_back_while_it_is_being_cancelled_is_cancelled(database, tenant, dataset):
    for give_back in (given.released, lambda database, claim: (expire(database, claim.job_id), reaped(database))):
        job = given.submitted(database, tenant, dataset)
        claim = given.claimed(database)
        with database.writing() as session:
            jobs.cancel(session, tenant, job.id)
        give_back(database, claim)
        assert given.seen(database, job.id).status == "cancelled"


@pytest.mark.parametrize("ending", TERMINAL)
def test_an_ending_is_final(database, tenant, dataset, ending):
    job = given.submitted(database, tenant, dataset)
    claim = given.claimed(database)
    given.finished(database, claim, ending, {"code": "diverged", "detail": "NaN."} if ending == "failed" else None)
    for write in (given.released, given.finished, given.recorded):
        with pytest.raises(leases.LeaseLost):
            write(database, claim)
    expire(database, job.id)
    assert reaped(database) == []
    with database.writing() as session:
        assert jobs.cancel(session, tenant, job.id).status == ending
        assert leases.claim(session, "train", "worker-1", 60) is None
        assert lifecycle.resolve_waiting(session) == 0
    assert statuses(database, job.id) == ["queued", "running", ending]


def test_a_users_fault_is_not_tried_again(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    error = {"code": "diverged", "detail": "The loss is not a number."}
    given.finished(database, given.claimed(database), "failed", error)
    shown = given.seen(database, job.id)
    assert (shown.status, shown.error, shown.status_detail) == ("failed", error, "The loss is not a number.")


def test_cancelling_while_a_worker_claims_ends_lawfully(database, tenant, dataset):
    def cancel(job_id):
        with database.writing() as session:
            return jobs.cancel(session, tenant, job_id).status

    def claim():
        with database.writing() as session:
            return leases.claim(session, "train", "worker-1", 60)

    for _ in range(12):
        job = given.submitted(database, tenant, dataset)
        claimed, answer = together(claim, lambda job=job: cancel(job.id))
        if claimed is None:
            assert answer == given.seen(database, job.id).status == "cancelled"
            assert statuses(database, job.id) == ["queued", "cancelled"]
        else:
            assert answer == given.seen(database, job.id).status == "cancelling"
            given.finished(database, claimed, "cancelled")


def test_cancelling_while_the_runner_finishes_ends_lawfully(database, tenant, dataset):
    def cancel(job_id):
        with database.writing() as session:
            return jobs.cancel(session, tenant, job_id).status

    for _ in range(12):
        job = given.submitted(database, tenant, dataset)
        claim = given.claimed(database)
        _, answer = together(lambda claim=claim: given.finished(database, claim), lambda job=job: cancel(job.id))
        assert given.seen(database, job.id).status == "succeeded"
        assert answer in ("succeeded", "cancelling")
        assert statuses(database, job.id)[-1] == "succeeded"


def test_taking_back_while_the_runner_writes_leaves_one_of_the_two(database, tenant, dataset):
    job = given.submitted(database, tenant, dataset)
    for step in range(12):
        claim = given.claimed(database)
        expire(database, job.id)
        write = lambda claim=claim, step=step: given.recorded(database, claim, given.metrics(step))  # noqa: E731
        taken, signal = together(lambda: reaped(database, 100), write)
        if taken:
            assert isinstance(signal, leases.LeaseLost)
        else:
            assert signal == "run"
            given.released(database, claim)


def test_many_keepers_take_a_job_back_once(database, tenant, dataset):
    ids = [given.submitted(database, tenant, dataset).id for _ in range(6)]
    for _ in ids:
        given.claimed(database, lease_seconds=-1)
    taken = [job for one in together(*[lambda: reaped(database)] * 4) for job in one]
    assert Counter(taken) == Counter(ids)


def test_a_job_submitted_while_its_parent_finishes_is_woken(database, tenant, dataset):
    for _ in range(8):
        parent = given.submitted(database, tenant, dataset)
        claim = given.claimed(database)
        given.recorded(database, claim, given.model())
        submit = lambda parent=parent: given.submitted(  # noqa: E731
            database, tenant, dataset, "knn_eval", model=parent.id
        )
        _, child = together(lambda claim=claim: given.finished(database, claim), submit)
        assert given.seen(database, child.id).status == "queued"
        given.finished(database, given.claimed(database))


def test_the_keeper_wakes_whom_nobody_told(database, tenant, dataset):
    parent = given.submitted(database, tenant, dataset)
    child = given.submitted(database, tenant, dataset, model=parent.id)
    grandchild = given.submitted(database, tenant, dataset, "knn_eval", model=child.id)
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == parent.id).values(status="cancelled"))
    with database.writing() as session:
        assert lifecycle.resolve_waiting(session) == 1
    for orphan in (child, grandchild):
        assert given.seen(database, orphan.id).error["code"] == "parent_failed"


def test_nothing_is_held_when_everything_has_ended(database, tenant, dataset):
    for ending in TERMINAL:
        given.submitted(database, tenant, dataset)
        given.finished(database, given.claimed(database), ending)
    with database.reading() as session:
        assert session.scalars(select(Job).where(Job.status.in_(HELD) | Job.lease_until.is_not(None))).all() == []
