"""The forecast of a queued job: its position is that in which jobs are claimed, its start follows from durations."""

import random

import pytest

from service import keys, leases, lifecycle, workers
from service.db import forecast
from service.db.models import Job
from ssl_core import events
from tests.service import given


def positions(database, *job_ids):
    with database.reading() as session:
        found = [forecast.forecast(session, session.get_one(Job, job_id), 60) for job_id in job_ids]
    return [each and each.position for each in found]


def test_positions_are_the_order_in_which_jobs_are_claimed(database, tenant, stranger):
    owned = {owner: given.create_ready_dataset(database, owner) for owner in (tenant, stranger)}
    submitted = [
        given.submit_job(database, owner, owned[owner], priority=priority).id
        for owner, priority in ((tenant, 0), (tenant, 0), (stranger, -5), (tenant, 7), (stranger, 3), (tenant, -1))
    ]
    assert positions(database, given.submit_job(database, tenant, owned[tenant], priority=-9).id) == [7]
    for _ in range(len(submitted)):
        queued = [job_id for job_id in submitted if given.get_job(database, job_id).status == "queued"]
        by_position = sorted(zip(positions(database, *queued), queued, strict=True))
        assert [place for place, _ in by_position] == list(range(1, len(queued) + 1))
        claim = given.claim_job(database)
        assert claim.job_id == by_position[0][1]
        assert positions(database, claim.job_id) == [None]


def test_jobs_that_share_another_are_not_before_a_job(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    trained = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    given.submit_job(
        database, tenant, dataset, "embed_dataset", model=trained.id, config={"rows_per_shard": 20, "workers": 3}
    )
    given.claim_job(database)
    assert positions(database, *(given.submit_job(database, tenant, dataset).id for _ in range(2))) == [1, 2]


def test_the_start_is_estimated_from_running_jobs_and_durations(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)

    def start_of(job_id):
        with database.reading() as session:
            found = forecast.forecast(session, session.get_one(Job, job_id), 60)
            return found.starts_at and found.starts_at - lifecycle.clock(session)

    done = given.submit_job(database, tenant, dataset)
    assert start_of(done.id) is None  # no worker
    with database.writing() as session:
        workers.record_heartbeat(session, "worker-1", "train")
    assert start_of(done.id) == pytest.approx(0, abs=5)
    behind = given.submit_job(database, tenant, dataset)
    assert start_of(behind.id) is None  # no job has ended
    claim = given.claim_job(database)
    with database.writing() as session:
        session.get_one(Job, done.id).claimed_at -= 1000
    given.finish_job(database, claim)
    running = given.claim_job(database)
    waiting = [given.submit_job(database, tenant, dataset).id for _ in range(2)]
    assert [start_of(job_id) for job_id in waiting] == [pytest.approx(1000, abs=20), pytest.approx(2000, abs=30)]
    progress = events.Progress(1, 10, 5, 100, 12.0, 50.0)
    given.record_events(database, running, progress)
    assert start_of(waiting[1]) == pytest.approx(1050, abs=20)
    with database.writing() as session:
        workers.record_heartbeat(session, "worker-2", "train")
    assert start_of(waiting[0]) == pytest.approx(0, abs=5)


@pytest.mark.parametrize("seed", range(10))
def test_positions_are_those_of_claims_whatever_the_owners_run(database, seed):
    rng, owned, running, submitted = random.Random(seed), [], [], []
    for name in ("a", "b", "c"):
        with database.writing() as session:
            owner = keys.get_or_create_tenant(session, name).id
        owned.append((owner, given.create_ready_dataset(database, owner)))
    for _ in range(rng.randint(3, 12)):
        owner, dataset = rng.choice(owned)
        submitted.append(given.submit_job(database, owner, dataset, priority=rng.choice([0, 0, 5])).id)
        if rng.random() < 0.4:
            running.append(given.claim_job(database))
            if rng.random() < 0.5:
                given.finish_job(database, running.pop(rng.randrange(len(running))))
    queued = [job_id for job_id in submitted if given.get_job(database, job_id).status == "queued"]
    found = dict(zip(queued, positions(database, *queued), strict=True))
    claimed = {}
    for number in range(len(queued)):
        with database.writing() as session:
            claimed[leases.claim(session, "train", "worker-1", 60).job_id] = number + 1
    assert found == claimed


@pytest.mark.parametrize(("eta", "wanted"), [(-5.0, 0), (1e12, None), (1e300, None)])
def test_odd_durations_give_no_odd_times(database, tenant, eta, wanted):
    dataset = given.create_ready_dataset(database, tenant)
    given.finish_job(database, submit_and_claim(database, tenant, dataset))
    running = submit_and_claim(database, tenant, dataset)
    given.record_events(database, running, events.Progress(1, 10, 5, 100, 12.0, eta))
    waiting = given.submit_job(database, tenant, dataset)
    with database.reading() as session:
        found = forecast.forecast(session, session.get_one(Job, waiting.id), 60)
        start = found.starts_at and found.starts_at - lifecycle.clock(session)
    assert start == (wanted if wanted is None else pytest.approx(wanted, abs=5))


def submit_and_claim(database, tenant, dataset):
    given.submit_job(database, tenant, dataset)
    return given.claim_job(database)
