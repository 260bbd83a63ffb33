"""Graceful shutdown of workers and jobs, invalid messages, and a broker that does not answer."""

import hashlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service import jobs, steering
from service.db.session import Database
from service.doorbell import Doorbell
from service.storage import Storage
from tests import logs
from tests.faults.fleet import Fleet, child_of, trainer_of
from tests.faults.nemesis import checker, history
from tests.faults.workload import Workload
from tests.processes import alive, soon

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def assert_has_last_checkpoint(workload: Workload, job_id: str) -> None:
    """Assert that the job's last step has a checkpoint with an intact file."""
    with workload.database.reading() as session:
        (newest, *_) = jobs.checkpoints(session, job_id)
    assert newest.step == workload.steps(job_id)[-1]
    file = workload.storage.absolute(newest.path)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == newest.sha256


@on_sqlite
def test_a_terminated_worker_writes_a_checkpoint_and_requeues_its_job_uncounted(
    fleet: Fleet, workload: Workload
) -> None:
    worker = fleet.worker()
    job = workload.submit(seed=1, epochs=12)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5)
    worker.terminate()
    assert worker.wait(timeout=20) == 0
    released = workload.job(job)
    assert (released.status, released.fruitless, released.attempt) == ("queued", 0, 1)
    assert_has_last_checkpoint(workload, job)
    assert fleet.find_leftovers() == []
    fleet.worker()
    fleet.ring()
    soon(lambda: workload.has_ended([job]))
    assert workload.faults(job) == []


@on_sqlite
def test_a_draining_worker_ends_after_its_job_and_an_idle_one_at_once(fleet: Fleet, workload: Workload) -> None:
    worker, idle = fleet.worker(), fleet.worker("data")
    fleet.hold.touch()
    job, later = workload.submit(seed=1, epochs=3), workload.submit(seed=2, epochs=3)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5 and " ready." in (fleet.folder / "worker-data.log").read_text())
    for pid in (idle.pid, worker.pid, child_of(worker).pid, trainer_of(worker).pid):
        os.kill(pid, signal.SIGUSR2)
    assert idle.wait(timeout=20) == 0
    assert worker.poll() is None
    fleet.hold.unlink()
    assert worker.wait(timeout=40) == 0
    assert (workload.job(job).status, workload.job(job).attempt) == ("succeeded", 1)
    assert (workload.job(later).status, workload.job(later).attempt) == ("queued", 0)
    assert fleet.find_leftovers() == []
    messages = [record["message"] for record in logs.read(fleet.folder / "worker-train.log")]
    assert any(message.startswith("The worker drains") for message in messages)


@on_sqlite
def test_a_draining_worker_stops_its_job_at_a_checkpoint_on_sigterm(fleet: Fleet, workload: Workload) -> None:
    worker, job = fleet.worker(), workload.submit(seed=5, epochs=1000)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5)
    worker.send_signal(signal.SIGUSR2)
    soon(lambda: "The worker drains" in fleet.logs())
    worker.terminate()
    assert worker.wait(timeout=40) == 0
    released = workload.job(job)
    assert (released.status, released.fruitless, released.attempt) == ("queued", 0, 1)
    assert_has_last_checkpoint(workload, job)


@on_sqlite
def test_a_worker_terminated_with_all_its_processes_requeues_its_job(fleet: Fleet, workload: Workload) -> None:
    worker, job = fleet.worker(), workload.submit(seed=5, epochs=1000)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5)
    for pid in [worker.pid, child_of(worker).pid, trainer_of(worker).pid]:
        os.kill(pid, signal.SIGTERM)
    worker.wait(timeout=40)
    released = workload.job(job)
    assert (released.status, released.fruitless, released.attempt) == ("queued", 0, 1)
    assert_has_last_checkpoint(workload, job)
    assert fleet.find_leftovers() == []


@on_sqlite
def test_a_child_terminated_alone_requeues_its_job_and_is_replaced(fleet: Fleet, workload: Workload) -> None:
    worker, job = fleet.worker(), workload.submit(seed=6, epochs=12)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5)
    child, trainer = child_of(worker).pid, trainer_of(worker).pid
    os.kill(child, signal.SIGTERM)
    soon(lambda: not alive(child))
    assert not alive(trainer)
    fleet.ring()
    soon(lambda: workload.has_ended([job]))
    assert workload.faults(job) == []
    ended = workload.job(job)
    assert (ended.attempt, ended.fruitless) == (2, 0)
    assert child_of(worker).pid != child


@on_sqlite
def test_a_cold_shutdown_lets_the_trainer_write_a_checkpoint(
    database_url: str, database: Database, tenant: str, tmp_path: Path
) -> None:
    with closing(Fleet(tmp_path, database_url, grace_seconds="2")) as fleet:
        fleet.broker.start()
        workload = Workload(database, Storage(fleet.settings.data_dir), tenant)
        worker, job = fleet.worker(), workload.submit(seed=5, epochs=1000)
        fleet.ring()
        soon(lambda: len(workload.steps(job)) > 5)
        worker.send_signal(signal.SIGQUIT)
        worker.wait(timeout=40)
        released = workload.job(job)
        assert (released.status, released.fruitless, released.attempt) == ("queued", 0, 1)
        assert_has_last_checkpoint(workload, job)
        assert fleet.find_leftovers() == []


@on_sqlite
def test_a_worker_without_a_broker_still_ends_on_sigterm(fleet: Fleet, workload: Workload) -> None:
    worker = fleet.worker()
    job = workload.submit(seed=6, epochs=1000)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5)
    fleet.broker.kill()
    worker.terminate()
    worker.wait(timeout=40)
    assert (workload.job(job).status, workload.job(job).fruitless) == ("queued", 0)
    assert_has_last_checkpoint(workload, job)
    assert fleet.find_leftovers() == []


@on_sqlite
def test_a_cancelled_job_keeps_its_checkpoint_and_ends_its_process(fleet: Fleet, workload: Workload) -> None:
    worker = fleet.worker()
    job = workload.submit(seed=2, epochs=1000)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5)
    trainer = trainer_of(worker)
    with workload.database.writing() as session:
        steering.cancel(session, workload.tenant, job)
    soon(lambda: workload.job(job).status == "cancelled", fleet.settings.grace_seconds)
    assert not alive(trainer.pid)
    assert_has_last_checkpoint(workload, job)


@on_sqlite
def test_a_worker_survives_garbage_in_its_queue(fleet: Fleet, workload: Workload) -> None:
    junk = [b"", b"junk", b"{}", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"headers": {"task": "twoviews.look"}}']
    forged = (
        b'{"body": "!", "content-type": "application/x-python-serialize", "content-encoding": "binary", "headers":'
        b'{"task": "twoviews.look", "id": "1", "timelimit": [0.001, 0.001], "eta": "2100-01-01T00:00:00"},'
        b'"properties": {"delivery_tag": "1", "delivery_info": {}, "body_encoding": "base64"}}'
    )
    worker = fleet.worker()
    with fleet.broker.client() as broker:
        for message in [*junk, forged] * 3:
            broker.lpush("train", message)
        job = workload.submit(seed=3, epochs=2)
        fleet.ring()
        soon(lambda: workload.has_ended([job]))
        soon(lambda: broker.llen("train") == 0)
    child = child_of(worker)
    assert workload.faults(job) == []
    assert workload.job(job).attempt == 1
    assert worker.poll() is None
    assert child is not None


@on_sqlite
def test_a_worker_never_loads_torch(fleet: Fleet, workload: Workload) -> None:
    worker = fleet.worker()
    job = workload.submit(seed=4, epochs=2)
    fleet.ring()
    soon(lambda: workload.has_ended([job]))
    for pid in (worker.pid, child_of(worker).pid):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "numpy" not in maps


@pytest.fixture
def silent_broker() -> Iterator[socket.socket]:
    """A broker that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield listener


def test_ringing_returns_while_the_broker_is_silent(silent_broker: socket.socket) -> None:
    bell = Doorbell(f"redis://127.0.0.1:{silent_broker.getsockname()[1]}/0")
    for _ in range(100):
        bell.ring("train")
    heard, _ = silent_broker.accept()
    with heard:
        assert heard.recv(1000)  # the request was sent, and the answer is pending
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.recv(1)
    bell.close()


def steer(workload: Workload, verb: Callable[..., object], job: str) -> None:
    with workload.database.writing() as session:
        verb(session, workload.tenant, job)


@pytest.mark.parametrize("verbs", [(steering.pause, steering.resume), (steering.cancel, steering.retry)])
def test_a_paused_or_retried_job_ends_with_the_bytes_of_a_run_that_was_never_stopped(
    fleet: Fleet, workload: Workload, verbs: tuple[Callable[..., object], ...]
) -> None:
    """By `ssl_core`: points, weights and files are those of the run without faults."""
    fleet.keeper()
    worker, job = fleet.worker(), workload.submit_real()
    soon(lambda: len(workload.steps(job)) > 5)
    trainer = trainer_of(worker)
    steer(workload, verbs[0], job)
    soon(lambda: workload.job(job).status in ("paused", "cancelled"))
    assert not alive(trainer.pid)
    assert_has_last_checkpoint(workload, job)
    other = workload.submit(seed=3, epochs=2)
    soon(lambda: workload.has_ended([other]))  # the worker is free
    steer(workload, verbs[1], job)
    soon(lambda: workload.job(job).status == "succeeded")
    assert workload.job(job).attempt == 2
    assert checker.check_results(history.read(workload.database, workload.storage), workload.job(job)) == []


@on_sqlite
def test_a_worker_killed_while_its_job_pauses_leaves_it_paused(fleet: Fleet, workload: Workload) -> None:
    fleet.keeper()
    worker = fleet.worker()
    fleet.hold.touch()
    job = workload.submit(seed=3, epochs=4)
    soon(lambda: len(workload.steps(job)) > 5)
    os.kill(worker.pid, signal.SIGSTOP)  # it cannot see the pause
    os.kill(child_of(worker).pid, signal.SIGSTOP)
    steer(workload, steering.pause, job)
    for pid in (child_of(worker).pid, worker.pid):
        os.kill(pid, signal.SIGKILL)
    soon(lambda: workload.job(job).status == "paused")
    fleet.hold.unlink()
    fleet.worker()
    steer(workload, steering.resume, job)
    soon(lambda: workload.has_ended([job]))
    assert workload.faults(job) == []


@on_sqlite
def test_a_job_that_has_run_for_its_maximum_time_fails_with_a_checkpoint_and_a_retry_goes_on(
    fleet: Fleet, workload: Workload
) -> None:
    fleet.keeper()
    fleet.worker()
    job = workload.submit(seed=5, epochs=1000, max_runtime=1)
    soon(lambda: workload.has_ended([job]))
    ended = workload.job(job)
    assert (ended.status, ended.error["code"], ended.attempt) == ("failed", "max_runtime", 1)
    assert_has_last_checkpoint(workload, job)
    steps = workload.steps(job)
    steer(workload, steering.retry, job)
    soon(lambda: workload.has_ended([job]))
    assert workload.job(job).attempt == 2
    assert workload.steps(job)[: len(steps) + 1] == [*steps, steps[-1] + 1]
