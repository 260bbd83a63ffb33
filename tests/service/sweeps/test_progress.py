"""The progress of sweeps: trials are started some at a time, noted when they end, stopped early, and reopened."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from service import datasets, jobs, models, steering
from service.db.models import Trial
from service.db.statuses import JobStatus
from service.deletion import jobs as job_deletion
from service.deletion import models as model_deletion
from service.errors import DatasetInUse, JobInUse, ModelInUse, SweepHasEnded, SweepNotFound, TooManySweeps
from service.quotas import checks
from service.sweeps import control, progress, registry
from service.sweeps.pruners import Threshold
from ssl_core import config, events
from tests.service import given
from worker.sweeps import pruning


def states(found):
    return [state for state, _ in found[2]]


def list_jobs(database, tenant, sweep):
    with database.reading() as session:
        return [*reversed(jobs.list_(session, tenant, limit=100, sweep=sweep.id).items)]


def test_trials_are_started_some_at_a_time_and_the_best_is_found(
    create_sweep, advance, run_trial, look, database, tenant
):
    sweep = create_sweep(0.1, 0.2, 0.3, 0.4, 0.5, name="temperatures", priority=3, metadata={"team": "vision"})
    assert states(look(sweep)) == ["planned"] * 5
    assert advance(sweep)
    assert states(look(sweep)) == ["running"] * 2 + ["planned"] * 3
    assert not advance(sweep)
    job = list_jobs(database, tenant, sweep)[0]
    assert (job.name, job.priority, job.user_metadata) == ("temperatures 0", 3, {"team": "vision"})
    assert job.config["method"]["temperature"] == 0.1
    assert job.sweep_id == sweep.id
    run_trial(0.3, 0.5)
    assert advance(sweep)
    assert states(look(sweep)) == ["succeeded", "running", "running", "planned", "planned"]
    run_trial(0.2, 0.9)
    run_trial(0.9, 0.6)
    assert advance(sweep)
    run_trial(ending="failed")
    run_trial(0.7)
    assert not advance(sweep)
    found, summary, trials = look(sweep)
    assert (found.status, found.finished_at is not None) == ("succeeded", True)
    assert [trial.value for _, trial in trials] == [0.5, 0.9, 0.6, None, 0.7]
    assert summary.counts == dict.fromkeys(registry.STATES, 0) | {"succeeded": 4, "failed": 1}
    assert (summary.best.number, summary.best.value) == (1, 0.9)
    assert found.status_detail == "The best online/knn is 0.9, of trial 1."
    assert not advance(sweep)
    assert len(list_jobs(database, tenant, sweep)) == 5


def test_the_least_value_is_the_best_when_it_is_minimized(create_sweep, advance, run_trial, look):
    sweep = create_sweep(0.1, 0.2, goal="minimize")
    advance(sweep)
    run_trial(0.3)
    run_trial(0.2)
    advance(sweep)
    assert look(sweep)[1].best.number == 1


def test_a_sweep_without_a_value_fails(create_sweep, advance, run_trial, look):
    sweep = create_sweep(0.1, 0.2)
    advance(sweep)
    run_trial(ending="failed")
    run_trial(None)  # not finite
    advance(sweep)
    found, summary, _ = look(sweep)
    assert (found.status, found.error["code"], summary.best) == ("failed", "no_value", None)


def test_several_keepers_start_no_trial_twice(create_sweep, advance, look, database, tenant):
    sweep = create_sweep(*(number / 100 for number in range(1, 21)), parallel=7)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: advance(sweep), range(24)))
    assert states(look(sweep)).count("running") == 7
    assert len(list_jobs(database, tenant, sweep)) == 7


def test_a_full_quota_delays_the_next_trial(create_sweep, advance, look):
    sweep = create_sweep(0.1, 0.2, 0.3, parallel=3)
    assert advance(sweep, quota_queued_jobs=1)
    assert not advance(sweep, quota_queued_jobs=1)
    found, summary, _ = look(sweep)
    assert (summary.counts["running"], summary.counts["planned"]) == (1, 2)
    assert "Waits to start trial 1: 1 jobs of training and evaluation are queued" in found.status_detail
    assert advance(sweep)
    assert look(sweep)[1].counts["running"] == 3


def test_a_paused_sweep_pauses_its_jobs_and_goes_on_when_it_is_resumed(
    create_sweep, advance, run_trial, look, database, tenant
):
    sweep = create_sweep(0.1, 0.2, 0.3)
    advance(sweep)
    claim = given.claim_job(database)
    with database.writing() as session:
        assert control.pause(session, tenant, sweep.id).status == "paused"
    assert [job.status for job in list_jobs(database, tenant, sweep)] == ["pausing", "paused"]
    assert not advance(sweep)
    given.finish_job(database, claim)  # it came to its end first
    advance(sweep)
    assert states(look(sweep)) == ["succeeded", "running", "planned"]
    with database.writing() as session:
        assert control.resume(session, tenant, sweep.id).status == "running"
    assert [job.status for job in list_jobs(database, tenant, sweep)] == ["succeeded", "queued"]
    assert advance(sweep)
    for value in (0.4, 0.6):
        run_trial(value)
    advance(sweep)
    assert look(sweep)[0].status == "succeeded"
    for act in (control.pause, control.resume):
        with database.writing() as session, pytest.raises(SweepHasEnded):
            act(session, tenant, sweep.id)


def test_a_cancelled_sweep_cancels_its_jobs_and_starts_no_other(create_sweep, advance, look, database, tenant):
    sweep = create_sweep(0.1, 0.2, 0.3)
    advance(sweep)
    given.claim_job(database)
    for _ in range(2):
        with database.writing() as session:
            assert control.cancel(session, tenant, sweep.id).status == "cancelled"
    assert not advance(sweep)
    assert [job.status for job in list_jobs(database, tenant, sweep)] == ["cancelling", "cancelled"]
    assert states(look(sweep)) == ["running", "cancelled", "cancelled"]


def test_a_deleted_sweep_leaves_its_jobs(create_sweep, advance, run_trial, database, tenant):
    sweep = create_sweep(0.1, 0.2)
    advance(sweep)
    job = run_trial(0.5)
    with database.writing() as session:
        control.delete(session, tenant, sweep.id)
    with database.reading() as session, pytest.raises(SweepNotFound):
        registry.get(session, tenant, sweep.id)
    assert [each.status for each in list_jobs(database, tenant, sweep)] == ["succeeded", "cancelled"]
    with database.reading() as session:
        assert session.scalars(select(Trial).where(Trial.sweep_id == sweep.id)).all() == []
    with database.writing() as session:
        job_deletion.delete(session, tenant, job)


def test_a_retried_trial_reopens_its_sweep(create_sweep, advance, run_trial, look, database, tenant):
    sweep = create_sweep(0.1, 0.2)
    advance(sweep)
    failed = run_trial(ending="failed")
    run_trial(0.4)
    advance(sweep)
    assert look(sweep)[0].status == "succeeded"
    with database.writing() as session:
        steering.retry(session, tenant, failed)
    found, summary, _ = look(sweep)
    assert (found.status, found.finished_at) == ("running", None)
    assert summary.counts["running"] == 1
    run_trial(0.8)
    advance(sweep)
    found, summary, _ = look(sweep)
    assert (found.status, summary.best.number) == ("succeeded", 0)


def test_a_trial_that_was_stopped_early_and_is_retried_is_not_stopped_again(create_sweep, advance, database, tenant):
    sweep = create_sweep(0.1, pruner=Threshold(name="threshold", lower=0.9).model_dump())
    advance(sweep)
    claim = given.claim_job(database)
    given.record_events(database, claim, events.Metrics(1, 1.0, 1.0, {"online/knn": 0.5}))
    advance(sweep, pruning.prune)
    given.finish_job(database, claim, "cancelled")
    advance(sweep, pruning.prune)
    with database.writing() as session:
        steering.retry(session, tenant, claim.job_id)
    claim = given.claim_job(database)
    given.record_events(database, claim, events.Metrics(2, 2.0, 1.0, {"online/knn": 0.6}))
    advance(sweep, pruning.prune)
    assert given.get_job(database, claim.job_id).status == "running"


def test_trials_that_could_not_be_submitted_are_planned_again_when_one_is_retried(
    create_sweep, advance, look, dataset, database, tenant
):
    maker = given.submit_job(database, tenant, dataset)
    sweep = create_sweep(0.1, 0.2, 0.3, 0.4, model=maker.id)
    advance(sweep)
    given.finish_job(database, given.claim_job(database), "failed")
    advance(sweep)
    assert states(look(sweep)) == ["failed"] * 4
    first = list_jobs(database, tenant, sweep)[0].id
    for job in (maker.id, first):
        with database.writing() as session:
            steering.retry(session, tenant, job)
    assert states(look(sweep)) == ["running", "failed", "planned", "planned"]


def test_a_sweep_whose_parent_failed_while_it_was_paused_ends_when_it_is_resumed(
    create_sweep, advance, look, dataset, database, tenant
):
    maker = given.submit_job(database, tenant, dataset)
    sweep = create_sweep(0.1, 0.2, 0.3, model=maker.id)
    advance(sweep)
    with database.writing() as session:
        control.pause(session, tenant, sweep.id)
    given.finish_job(database, given.claim_job(database), "failed")
    with database.writing() as session:
        control.resume(session, tenant, sweep.id)
    advance(sweep)
    assert look(sweep)[0].status == "failed"
    assert {job.error["code"] for job in list_jobs(database, tenant, sweep)} == {"parent_failed"}


def test_a_paused_sweep_ends_with_its_last_job(create_sweep, advance, look, database, tenant):
    sweep = create_sweep(0.1, 0.2)
    advance(sweep)
    with database.writing() as session:
        control.pause(session, tenant, sweep.id)
    for job in list_jobs(database, tenant, sweep):
        with database.writing() as session:
            steering.cancel(session, tenant, job.id)
    advance(sweep)
    assert look(sweep)[0].status == "failed"


def test_a_cancelled_sweep_keeps_the_values_of_trials_that_have_ended(
    create_sweep, advance, run_trial, look, database, tenant
):
    sweep = create_sweep(0.1, 0.2)
    advance(sweep)
    run_trial(0.5)
    with database.writing() as session:
        control.cancel(session, tenant, sweep.id)
    summary = look(sweep)[1]
    assert (summary.counts["succeeded"], summary.best.value) == (1, 0.5)


def test_a_step_and_a_request_of_the_same_owner_do_not_wait_for_each_other(
    create_sweep, advance, dataset, database, settings, tenant
):
    """Both lock the owner first, where there are quotas."""
    sweep = create_sweep(0.1, 0.2, pruner={"name": "median"})
    advance(sweep)
    claim = given.claim_job(database)
    given.record_events(database, claim, events.Metrics(1, 1.0, 1.0, {"online/knn": 0.5}))
    limited = settings.model_copy(update={"quota_queued_jobs": 50})
    begun = threading.Event()

    def submit():
        with database.writing() as session:
            checks.check_jobs(session, tenant, "train", limited)
            begun.set()
            time.sleep(0.5)
            jobs.submit(session, tenant, dataset, config.parse({}, "knn_eval"), model=claim.job_id)

    def step():
        begun.wait()
        advance(sweep, lambda _, trials, fresh: dict.fromkeys(fresh, 1), quota_queued_jobs=50)

    with ThreadPoolExecutor(2) as pool:
        for call in [pool.submit(submit), pool.submit(step)]:
            call.result()
    assert given.get_job(database, claim.job_id).status == "cancelling"


def test_only_sweeps_with_something_to_do_are_due(create_sweep, advance, run_trial, database, tenant):
    def list_due():
        with database.reading() as session:
            return progress.list_due(session)

    sweep = create_sweep(0.1, 0.2, 0.3)
    assert list_due() == [sweep.id]
    advance(sweep)
    assert list_due() == []
    run_trial(0.5)
    assert list_due() == [sweep.id]
    advance(sweep)
    assert list_due() == []
    with database.writing() as session:
        control.pause(session, tenant, sweep.id)
    assert list_due() == []
    with database.writing() as session:
        control.resume(session, tenant, sweep.id)
    for _ in range(2):
        run_trial(0.5)
    assert list_due() == [sweep.id]
    advance(sweep)
    assert list_due() == []


def test_an_owner_has_so_many_active_sweeps(create_sweep, database, tenant, monkeypatch):
    monkeypatch.setattr(registry, "MAX_ACTIVE", 2)
    first = create_sweep(0.1)
    create_sweep(0.1)
    with pytest.raises(TooManySweeps):
        create_sweep(0.1)
    with database.writing() as session:
        control.cancel(session, tenant, first.id)
    create_sweep(0.1)


def test_epochs_of_very_many_points_are_reported(create_sweep, advance, database):
    seen = {}

    def prune_none(sweep, trials, fresh):
        seen.update(fresh)
        return {}

    sweep = create_sweep(0.1, pruner={"name": "median"}, metric="train/loss", goal="minimize")
    advance(sweep)
    claim = given.claim_job(database)
    points = [events.Metrics(step, step / 12_000, 1.0, {"train/loss": float(step)}) for step in range(1, 24_001)]
    given.record_events(database, claim, *points)
    advance(sweep, prune_none)
    assert seen == {0: [(1, 12_000.0), (2, 24_000.0)]}


def test_a_retried_trial_of_a_cancelled_sweep_leaves_it_cancelled(create_sweep, advance, look, database, tenant):
    sweep = create_sweep(0.1)
    advance(sweep)
    with database.writing() as session:
        control.cancel(session, tenant, sweep.id)
    job = list_jobs(database, tenant, sweep)[0]
    with database.writing() as session:
        steering.retry(session, tenant, job.id)
    assert look(sweep)[0].status == "cancelled"
    assert given.get_job(database, job.id).status == "queued"


def test_what_an_active_sweep_needs_is_not_deleted(create_sweep, advance, run_trial, dataset, database, tenant):
    maker = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model(projector={"widths": [64, 64]}))
    given.finish_job(database, claim)
    with database.reading() as session:
        model = models.get(session, tenant, maker.id).id
    sweep = create_sweep(0.1, 0.2, parallel=1, model=model)
    advance(sweep)
    job = run_trial(0.5)
    advance(sweep)
    last = run_trial(0.5)
    for delete, name, error in (
        (datasets.delete, dataset, DatasetInUse),
        (job_deletion.delete, job, JobInUse),
        (model_deletion.delete, model, ModelInUse),
    ):
        with database.writing() as session, pytest.raises(error) as refusal:
            delete(session, tenant, name)
        assert f"/sweeps/{sweep.id}" in [fault["pointer"] for fault in refusal.value.errors], name
    advance(sweep)
    with database.writing() as session:
        job_deletion.delete(session, tenant, job)
        job_deletion.delete(session, tenant, last)
        model_deletion.delete(session, tenant, model)
        datasets.delete(session, tenant, dataset)


def test_trials_wait_for_the_job_that_makes_their_model_and_fail_with_it(
    create_sweep, advance, look, dataset, database, tenant
):
    maker = given.submit_job(database, tenant, dataset)
    sweep = create_sweep(0.1, 0.2, 0.3, model=maker.id)
    advance(sweep)
    assert [job.status for job in list_jobs(database, tenant, sweep)] == [JobStatus.WAITING] * 2
    given.finish_job(database, given.claim_job(database), "failed")
    advance(sweep)
    found, _, trials = look(sweep)
    assert (found.status, [state for state, _ in trials]) == ("failed", ["failed"] * 3)
    assert trials[2][1].error["code"] == "parent_failed"


def test_reports_are_the_last_values_of_completed_epochs(create_sweep, advance, database):
    seen = []

    def prune_none(sweep, trials, fresh):
        seen.append({number: [*reports] for number, reports in fresh.items()})
        for number, reports in fresh.items():
            trials[number].reports.extend(reports)
            trials[number].state = {"seen": len(trials[number].reports)}
        return {}

    sweep = create_sweep(0.1, pruner={"name": "median"}, metric="train/loss", goal="minimize")
    advance(sweep, prune_none)
    claim = given.claim_job(database)

    def record(*points):
        given.record_events(
            database,
            claim,
            *(events.Metrics(round(100 * epoch), epoch, 1.0, {"train/loss": value}) for epoch, value in points),
        )
        advance(sweep, prune_none)

    record((0.25, 9.0), (0.75, 8.0))
    assert seen == []
    record((1.0, 7.0), (1.5, 6.0))
    record((1.75, 5.0))
    record((2.25, None), (3.5, 3.0))
    given.finish_job(database, claim)
    advance(sweep, prune_none)
    assert seen == [{0: [(1, 7.0)]}, {0: [(2, 5.0), (3, None)]}, {0: [(4, 3.0)]}]


def test_a_trial_that_is_stopped_early_is_cancelled_and_never_the_best(
    create_sweep, advance, run_trial, look, database
):
    def stop_the_first(sweep, trials, fresh):
        for number, reports in fresh.items():
            trials[number].reports.extend(reports)
        return {0: 2} if 0 in fresh else {}

    sweep = create_sweep(0.1, 0.2, pruner={"name": "median"})
    advance(sweep, stop_the_first)
    claim = given.claim_job(database)
    points = [events.Metrics(epoch, float(epoch), 1.0, {"online/knn": 0.9}) for epoch in (1, 2)]
    given.record_events(database, claim, *points)
    advance(sweep, stop_the_first)
    job = given.get_job(database, claim.job_id)
    assert job.status == JobStatus.CANCELLING
    with database.reading() as session:
        last = jobs.events(session, job.id).items[-2]
    assert (last.code, "at epoch 2, by the pruner median" in last.message) == ("pruned", True)
    given.finish_job(database, claim, "cancelled")
    run_trial(0.5)
    advance(sweep, stop_the_first)
    found, summary, trials = look(sweep)
    assert (found.status, [state for state, _ in trials]) == ("succeeded", ["pruned", "succeeded"])
    assert [trial.value for _, trial in trials] == [0.9, 0.5]
    assert summary.best.number == 1


def test_sweeps_belong_to_their_owner_and_are_listed(create_sweep, database, tenant, stranger, dataset):
    first, second = create_sweep(0.1), create_sweep(0.2)
    with database.writing() as session:
        control.cancel(session, tenant, first.id)
    with database.reading() as session:
        assert [sweep.id for sweep in registry.list_(session, tenant).items] == [second.id, first.id]
        assert [sweep.id for sweep in registry.list_(session, tenant, status="running").items] == [second.id]
        assert len(registry.list_(session, tenant, dataset=dataset).items) == 2
        assert registry.list_(session, tenant, dataset="x").items == []
        assert registry.list_(session, stranger).items == []
        with pytest.raises(SweepNotFound):
            registry.get(session, stranger, first.id)
