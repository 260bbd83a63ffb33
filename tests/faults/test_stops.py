"""Polite ends and mute servers: what stops on request, and what goes on without an answer."""

import hashlib
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service import jobs
from service.db.session import Database
from service.doorbell import Doorbell
from service.storage import Storage
from tests.faults.fleet import Fleet, child_of, trainer_of
from tests.faults.workload import Workload
from tests.processes import alive, soon

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def assert_kept(workload: Workload, job_id: str) -> None:
    """The job's last step has a checkpoint, and its file is as it was written."""
    with workload.database.reading() as session:
        (newest, *_) = jobs.checkpoints(session, job_id)
    assert newest.step == workload.steps(job_id)[-1]
    file = workload.storage.absolute(newest.path)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == newest.sha256


@on_sqlite
def test_a_terminated_worker_leaves_a_checkpoint_and_the_job_uncounted(fleet: Fleet, workload: Workload) -> None:
    fleet.keeper()
    worker = fleet.worker()
    job = workload.submit(seed=1, epochs=12)
    soon(lambda: len(workload.steps(job)) > 5)
    worker.terminate()
    assert worker.wait(timeout=20) == 0
    released = workload.job(job)
    assert (released.status, released.fruitless, released.attempt) == ("queued", 0, 1)
    assert_kept(workload, job)
    assert fleet.left() == []
    fleet.worker()
    soon(lambda: workload.ended([job]))
    assert workload.faults(job) == []


@on_sqlite
def test_a_worker_ended_with_all_its_processes_at_once_gives_its_job_back_too(fleet: Fleet, workload: Workload) -> None:
    worker, job = fleet.worker(), workload.submit(seed=5, epochs=1000)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5)
    for pid in [worker.pid, child_of(worker).pid, trainer_of(worker).pid]:
        os.kill(pid, signal.SIGTERM)
    worker.wait(timeout=40)
    released = workload.job(job)
    assert (released.status, released.fruitless, released.attempt) == ("queued", 0, 1)
    assert_kept(workload, job)
    assert fleet.left() == []


@on_sqlite
def test_a_child_that_is_terminated_alone_gives_its_job_back_and_is_replaced(fleet: Fleet, workload: Workload) -> None:
    fleet.keeper()
    worker, job = fleet.worker(), workload.submit(seed=6, epochs=12)
    soon(lambda: len(workload.steps(job)) > 5)
    child, trainer = child_of(worker).pid, trainer_of(worker).pid
    os.kill(child, signal.SIGTERM)
    soon(lambda: not alive(child))
    assert not alive(trainer)
    soon(lambda: workload.ended([job]))
    assert workload.faults(job) == []
    ended = workload.job(job)
    assert (ended.attempt, ended.fruitless) == (2, 0)
    assert child_of(worker).pid != child


@on_sqlite
def test_a_worker_in_a_hurry_still_lets_its_trainer_write_a_checkpoint(
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
        assert_kept(workload, job)
        assert fleet.left() == []


@on_sqlite
def test_a_worker_whose_broker_is_away_still_ends_when_asked(fleet: Fleet, workload: Workload) -> None:
    worker = fleet.worker()
    job = workload.submit(seed=6, epochs=1000)
    fleet.ring()
    soon(lambda: len(workload.steps(job)) > 5)
    fleet.broker.kill()
    worker.terminate()
    worker.wait(timeout=40)
    assert (workload.job(job).status, workload.job(job).fruitless) == ("queued", 0)
    assert_kept(workload, job)
    assert fleet.left() == []


@on_sqlite
def test_a_cancelled_run_ends_with_its_checkpoint_kept_and_its_process_gone(fleet: Fleet, workload: Workload) -> None:
    fleet.keeper()
    worker = fleet.worker()
    job = workload.submit(seed=2, epochs=1000)
    soon(lambda: len(workload.steps(job)) > 5)
    trainer = trainer_of(worker)
    with workload.database.writing() as session:
        jobs.cancel(session, workload.tenant, job)
    soon(lambda: workload.job(job).status == "cancelled", fleet.settings.grace_seconds)
    assert not alive(trainer.pid)
    assert_kept(workload, job)


@on_sqlite
def test_garbage_in_the_brokers_list_does_the_worker_no_harm(fleet: Fleet, workload: Workload) -> None:
    junk = [b"", b"junk", b"{}", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"headers": {"task": "twoviews.look"}}']
    forged = (
        b'{"body": "!", "content-type": "application/x-python-serialize", "content-encoding": "binary", "headers":'
        b'{"task": "twoviews.look", "id": "1", "timelimit": [0.001, 0.001], "eta": "2100-01-01T00:00:00"},'
        b'"properties": {"delivery_tag": "1", "delivery_info": {}, "body_encoding": "base64"}}'
    )
    fleet.keeper()
    worker = fleet.worker()
    with fleet.broker.client() as broker:
        for message in [*junk, forged] * 3:
            broker.lpush("train", message)
        job = workload.submit(seed=3, epochs=2)
        soon(lambda: workload.ended([job]))
        soon(lambda: broker.llen("train") == 0)
    child = child_of(worker)
    assert workload.faults(job) == []
    assert workload.job(job).attempt == 1
    assert worker.poll() is None
    assert child is not None


@on_sqlite
def test_a_worker_never_loads_torch(fleet: Fleet, workload: Workload) -> None:
    fleet.keeper()
    worker = fleet.worker()
    job = workload.submit(seed=4, epochs=2)
    soon(lambda: workload.ended([job]))
    for pid in (worker.pid, child_of(worker).pid):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "numpy" not in maps


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A broker that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield listener


def test_ringing_returns_while_the_broker_is_silent(mute: socket.socket) -> None:
    bell = Doorbell(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
    for _ in range(100):
        bell.ring("train")
    heard, _ = mute.accept()
    with heard:
        assert heard.recv(1000)  # it asked, and it still waits for the answer
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.recv(1)
    bell.close()
