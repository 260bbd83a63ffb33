"""Kill -9 of one process at a time: every job ends exactly once, with the weights of a run without faults.

The trainer is `ssl_core` where the fault is its own, or where two of them run at a time; elsewhere it is the toy.
"""

import os
import random
import signal
import subprocess
import time

import pytest

from tests.faults.fleet import Fleet, child_of, kill, trainer_of
from tests.faults.workload import Workload
from tests.processes import alive, soon

# Each kind of fault on one kind of database; the nemesis mixes all of them on both.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def wait_for_training(workload: Workload, job_id: str, worker: subprocess.Popen, rng: random.Random, steps=12) -> None:
    """Wait until that worker's trainer is past its first checkpoint, then for a random time."""
    soon(lambda: trainer_of(worker) is not None and len(workload.steps(job_id)) >= steps)
    time.sleep(rng.random() / 4)


def suspend(pids: list[int], workload: Workload, rng: random.Random) -> None:
    """Stop the processes outside of a write, which on SQLite would block the whole service."""
    while True:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        if workload.is_writable():
            return
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
        time.sleep(rng.random() / 10)


def assert_unharmed(workload: Workload, fleet: Fleet, *job_ids: str, attempts: int) -> None:
    soon(lambda: workload.has_ended(job_ids))
    assert [fault for job_id in job_ids for fault in workload.faults(job_id)] == [], fleet.logs()
    assert max(workload.job(job_id).attempt for job_id in job_ids) >= attempts, "the fault had no effect"


@on_sqlite
def test_a_killed_trainer_is_restarted(fleet: Fleet, workload: Workload, rng: random.Random) -> None:
    fleet.keeper()
    worker = fleet.worker()
    job = workload.submit_real()
    wait_for_training(workload, job, worker, rng)
    trainer = trainer_of(worker)
    assert trainer is not None
    kill(trainer.pid)
    assert_unharmed(workload, fleet, job, attempts=2)
    assert fleet.find_leftovers() == [" ".join(child_of(worker).cmdline())]


@on_postgresql
def test_a_killed_celery_child_ends_its_trainer_and_is_replaced(
    fleet: Fleet, workload: Workload, rng: random.Random
) -> None:
    fleet.keeper()
    worker = fleet.worker()
    fleet.hold.touch()
    job = workload.submit(seed=2, epochs=4)
    wait_for_training(workload, job, worker, rng)
    trainer = trainer_of(worker)
    kill(child_of(worker).pid)
    soon(lambda: not alive(trainer.pid), 5)
    fleet.hold.unlink()
    assert_unharmed(workload, fleet, job, attempts=2)
    assert worker.poll() is None


@on_sqlite
def test_a_killed_worker_ends_its_child_and_trainer(fleet: Fleet, workload: Workload, rng: random.Random) -> None:
    fleet.keeper()
    worker = fleet.worker()
    fleet.hold.touch()
    job = workload.submit(seed=3, epochs=4)
    wait_for_training(workload, job, worker, rng)
    child, trainer = child_of(worker), trainer_of(worker)
    kill(worker.pid)
    soon(lambda: not alive(child.pid) and not alive(trainer.pid), 5)
    fleet.hold.unlink()
    fleet.worker()
    assert_unharmed(workload, fleet, job, attempts=2)


@on_postgresql
def test_a_worker_killed_before_the_first_checkpoint_loses_no_job(fleet: Fleet, workload: Workload) -> None:
    fleet.keeper()
    worker = fleet.worker()
    job = workload.submit(seed=4, epochs=4)
    soon(lambda: workload.job(job).status == "running")
    kill(worker.pid)
    fleet.worker()
    assert_unharmed(workload, fleet, job, attempts=2)


@on_sqlite
def test_without_a_keeper_no_job_is_requeued_or_rung_for_until_the_next_keeper(
    fleet: Fleet, workload: Workload, rng: random.Random
) -> None:
    keeper, worker = fleet.keeper(), fleet.worker()
    held = workload.submit(seed=5, epochs=6)
    wait_for_training(workload, held, worker, rng)
    kill(keeper.pid)
    kill(worker.pid)
    soon(lambda: not workload.has_lease(held))
    names = set(workload.list_workers())
    fleet.worker()
    soon(fleet.broker.count_listeners)
    fleet.ring()
    soon(lambda: set(workload.list_workers()) - names)  # the new worker has found no queued job
    soon(lambda: fleet.broker.queue_length() == 0)
    time.sleep(1)  # the message is taken from the queue before the worker looks for a job
    queued = workload.submit(seed=6, epochs=4)
    time.sleep(1)
    assert [(job.status, job.attempt) for job in map(workload.job, (held, queued))] == [("running", 1), ("queued", 0)]
    fleet.keeper()
    assert_unharmed(workload, fleet, held, queued, attempts=2)


@pytest.mark.parametrize(
    ("data", "database_url"), [("kept", "postgresql"), ("lost", "sqlite")], indirect=["database_url"]
)
def test_a_killed_broker_stops_no_run_and_loses_no_job(
    fleet: Fleet, workload: Workload, data: str, rng: random.Random
) -> None:
    first = workload.submit(seed=7, epochs=8)
    fleet.ring()
    assert fleet.broker.queue_length() == 1
    fleet.broker.kill(data)
    fleet.broker.start()
    assert fleet.broker.queue_length() == (1 if data == "kept" else 0)
    worker = fleet.worker()
    if data == "lost":
        soon(fleet.broker.count_listeners)
        time.sleep(1)
        assert workload.job(first).status == "queued"
        fleet.keeper()  # rings again
    wait_for_training(workload, first, worker, rng, steps=1)
    trainer = trainer_of(worker)
    fleet.broker.kill(data)
    second = workload.submit(seed=8, epochs=4)
    time.sleep(0.5)
    assert alive(trainer.pid), "the run ended with its broker"
    fleet.broker.start()
    assert_unharmed(workload, fleet, first, second, attempts=1)
    assert workload.job(first).attempt == 1


@pytest.mark.parametrize(
    ("stopped", "database_url"), [("child", "postgresql"), ("worker", "sqlite")], indirect=["database_url"]
)
def test_a_worker_suspended_past_its_lease_loses_its_job(
    fleet: Fleet, workload: Workload, stopped: str, rng: random.Random
) -> None:
    fleet.keeper()
    stopped_worker = fleet.worker()
    fleet.hold.touch()
    job = workload.submit_real() if stopped == "child" else workload.submit(seed=9, epochs=4)
    wait_for_training(workload, job, stopped_worker, rng)
    trainer = trainer_of(stopped_worker)
    pids = [child_of(stopped_worker).pid, *([stopped_worker.pid, trainer.pid] if stopped == "worker" else [])]
    suspend(pids, workload, rng)
    fleet.worker()
    soon(lambda: workload.job(job).attempt == 2)
    fleet.hold.unlink()
    for pid in reversed(pids):  # the trainer first: the child kills it as soon as it resumes
        os.kill(pid, signal.SIGCONT)
    soon(lambda: not alive(trainer.pid))
    assert_unharmed(workload, fleet, job, attempts=2)
    assert alive(stopped_worker.pid)
