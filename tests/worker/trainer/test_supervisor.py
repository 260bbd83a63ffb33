"""The supervisor: what follows from each way in which a trainer can end, with real processes."""

import errno
import hashlib
import os
import sys
import threading
from collections.abc import Callable

import psutil
import pytest
from sqlalchemy import update

from service import jobs, leases
from service.db.models import Job
from service.db.session import now
from tests.faults import trainer
from tests.processes import alive, soon
from tests.service import given
from tests.worker.conftest import ODD_TRAINER, TRAINER, Run
from worker.trainer import command
from worker.trainer.process import TrainerProcess
from worker.trainer.supervisor import supervise

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.usefixtures("_quick_steps"),
]


def odd(mode: str) -> str:
    return f"{ODD_TRAINER} {mode}"


def in_thread(run: Run, mode: str) -> threading.Thread:
    """Supervise in a thread, as the trainer's parent must live on."""
    thread = threading.Thread(target=run.supervise, args=[mode])
    thread.start()
    return thread


def test_a_result_ends_the_job_with_its_metrics_and_its_model(a_run: Callable[..., Run]) -> None:
    run = a_run(epochs=3, seed=5)
    job = run.attempt(str(TRAINER))
    assert (job.status, job.attempt, job.summary) == ("succeeded", 1, {"steps": 30})
    assert run.steps == list(range(1, 31))
    weights = run.storage.attempt_dir(run.job_id, 1) / "model" / "weights.safetensors"
    assert weights.read_bytes() == trainer.weights(5, 30)
    assert job.made_model_id is not None
    assert not psutil.pid_exists(run.left("pid"))  # nor does it wait to be reaped


def test_a_trainer_is_told_no_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "TWOVIEWS_DATABASE_URL": "postgresql://x",
        "TWOVIEWS_BROKER_URL": "redis://x",
        "TWOVIEWS_ENCODER_TOKEN": "x",
    }
    for name, value in {**secrets, "TWOVIEWS_MAX_IMAGES": "7"}.items():
        monkeypatch.setenv(name, value)
    process = TrainerProcess([sys.executable, "-c", "import os; print(*os.environ)"])
    lines = []
    while not process.ended:
        lines += process.read(0.1)
    told = b" ".join(lines + process.clear_away()).decode().split()
    assert "TWOVIEWS_MAX_IMAGES" in told
    assert secrets.keys().isdisjoint(told)


def test_a_killed_trainer_sends_the_job_back_to_the_queue(run: Run) -> None:
    job = run.attempt(odd("killed"))
    assert (job.status, job.fruitless) == ("queued", 1)
    assert "SIGKILL" in job.status_detail
    assert "memory" in job.status_detail


def test_an_exit_without_a_result_is_a_fault_although_its_code_is_0(run: Run) -> None:
    job = run.attempt(odd("nothing"))
    assert job.status == "queued"
    assert "without a result" in job.status_detail


def test_the_last_words_on_stderr_are_the_reason_and_the_rest_is_kept(run: Run) -> None:
    job = run.attempt(odd("told_why"))
    assert job.status_detail.endswith("exit code 3: RuntimeError: out of luck")
    assert [event.data["stderr"] for event in run.events if event.code == "attempt_failed"] == [
        "Traceback: somewhere\nRuntimeError: out of luck"
    ]


def test_three_fruitless_attempts_in_a_row_fail_the_job_with_the_reason(run: Run) -> None:
    statuses = [run.attempt(odd("told_why")).status for _ in range(3)]
    assert statuses == ["queued", "queued", "failed"]
    assert run.job.error["code"] == "no_progress"
    assert "out of luck" in run.job.error["detail"]


def test_a_diverged_run_fails_at_once_and_is_not_retried(run: Run) -> None:
    job = run.attempt(odd("diverged"))
    assert job.status == "failed"
    assert job.error == {"code": "diverged", "detail": "The loss is not a number.", "step": 7}


def test_a_fault_of_the_machine_is_retried(run: Run) -> None:
    job = run.attempt(odd("machine_fault"))
    assert (job.status, job.fruitless) == ("queued", 1)
    assert "device_lost" in job.status_detail


def test_a_full_storage_is_waited_out_and_never_counts(run: Run) -> None:
    job = run.attempt(odd("no_room"))
    assert (job.status, job.fruitless) == ("queued", 0)
    assert job.status_detail == "The storage is full."


def test_a_full_storage_at_the_start_is_waited_out_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> list[str]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "build", no_room)
    job = run.attempt(odd("nothing"))
    assert (job.status, job.fruitless) == ("queued", 0)
    assert "storage is full" in job.status_detail


def test_lines_that_are_no_events_are_noted_a_few_times_and_do_no_harm(run: Run) -> None:
    job = run.attempt(odd("garbage"))
    assert (job.status, job.summary) == ("succeeded", {"after": "garbage"})
    noted = [event for event in run.events if event.code == "not_an_event"]
    assert len(noted) == 20
    assert max(event.data["bytes"] for event in noted) == 4 * 2**20
    assert run.steps == [1]


def test_a_log_that_cannot_be_stored_is_replaced_by_one_that_says_so(run: Run) -> None:
    assert run.attempt(odd("bad_log")).status == "succeeded"
    assert run.steps == list(range(1, 21))
    assert [event.level for event in run.events if event.code == "bad_event"] == ["warning"]


@pytest.mark.parametrize("mode", ["bad_metrics", "bad_model"])
def test_a_trainer_that_breaks_the_protocol_fails_the_job(run: Run, mode: str) -> None:
    job = run.attempt(odd(mode))
    assert job.status == "failed"
    assert job.error["code"] == "bad_event"


def test_a_command_that_cannot_start_is_a_fault(run: Run) -> None:
    claim = given.claim_job(run.database)
    settings = run.settings("").model_copy(update={"trainer_command": ["/nowhere/python"]})
    supervise(claim, run.database, run.storage, settings, run.stop.is_set)
    assert run.job.status == "queued"
    assert "could not be started" in run.job.status_detail


@pytest.mark.parametrize(("mode", "status"), [("hangs_after_result", "succeeded"), ("goes_silent", "queued")])
def test_a_trainer_that_has_said_its_last_word_is_killed_after_the_grace(run: Run, mode: str, status: str) -> None:
    run.grace_seconds = 0.3
    assert run.attempt(odd(mode)).status == status
    assert not alive(run.left("pid"))


def test_what_the_trainer_started_goes_with_it_and_does_not_hold_the_verdict_up(run: Run) -> None:
    assert run.attempt(odd("leaves_child")).status == "succeeded"
    soon(lambda: not alive(run.left("child")))


def test_a_process_that_fled_the_trainers_group_does_not_hold_the_verdict_up(run: Run) -> None:
    assert run.attempt(odd("leaves_runaway")).status == "succeeded"
    assert alive(run.left("child"))
    os.kill(run.left("child"), 9)


def test_cancel_stops_the_trainer_and_keeps_its_checkpoint(a_run: Callable[..., Run]) -> None:
    run = a_run(epochs=1000)
    thread = in_thread(run, str(TRAINER))
    soon(lambda: run.checkpoints)
    with run.database.writing() as session:
        assert jobs.cancel(session, run.tenant, run.job_id).status == "cancelling"
    thread.join()
    assert run.job.status == "cancelled"
    newest = run.checkpoints[0]
    file = run.storage.absolute(newest.path)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == newest.sha256
    assert newest.step == run.steps[-1]


def test_cancel_kills_a_trainer_that_does_not_listen(run: Run) -> None:
    run.grace_seconds = 0.3
    thread = in_thread(run, odd("deaf"))
    soon(lambda: run.steps)
    with run.database.writing() as session:
        jobs.cancel(session, run.tenant, run.job_id)
    thread.join()
    assert run.job.status == "cancelled"
    assert not alive(run.left("pid"))


def test_a_worker_that_stops_gives_the_job_back_uncounted_and_the_next_goes_on(a_run: Callable[..., Run]) -> None:
    run = a_run(epochs=10, seed=3)
    thread = in_thread(run, str(TRAINER))
    soon(lambda: run.steps)
    run.stop.set()
    thread.join()
    stopped = run.job
    assert (stopped.status, stopped.fruitless) == ("queued", 0)
    resumed_from = run.checkpoints[0].step
    assert resumed_from == len(run.steps)
    run.stop.clear()
    assert run.attempt(str(TRAINER)).status == "succeeded"
    assert run.steps == list(range(1, 101))
    weights = run.storage.attempt_dir(run.job_id, 2) / "model" / "weights.safetensors"
    assert weights.read_bytes() == trainer.weights(3, 100)


def test_a_lost_lease_kills_the_trainer_and_nothing_more_is_written(run: Run) -> None:
    thread = in_thread(run, odd("talks"))
    soon(lambda: run.steps)
    with run.database.writing() as session:
        session.execute(update(Job).values(lease_until=now() - 1))
        assert leases.reap(session) == [run.job_id]
    written = run.steps, len(run.events)
    thread.join()
    assert not alive(run.left("pid"))
    assert (run.job.status, run.steps, len(run.events)) == ("queued", *written)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_checkpoint_that_is_not_as_written_is_passed_over(a_run: Callable[..., Run], damage: str) -> None:
    run = a_run(epochs=6, seed=4)
    thread = in_thread(run, str(TRAINER))
    soon(lambda: len(run.checkpoints) == 2)
    run.stop.set()
    thread.join()
    run.stop.clear()
    newest, older = run.checkpoints
    file = run.storage.absolute(newest.path)
    file.unlink() if damage == "missing" else file.write_bytes(b"other")
    assert run.attempt(str(TRAINER)).status == "succeeded"
    (noted,) = [event for event in run.events if event.code == "checkpoint_damaged"]
    assert noted.data["step"] == newest.step
    assert damage in noted.message
    assert older.step < newest.step
    assert run.steps == list(range(1, 61))


def test_without_any_whole_checkpoint_the_run_starts_over(a_run: Callable[..., Run]) -> None:
    run = a_run(epochs=6, seed=4)
    thread = in_thread(run, str(TRAINER))
    soon(lambda: len(run.checkpoints) == 2)
    run.stop.set()
    thread.join()
    run.stop.clear()
    for checkpoint in run.checkpoints:
        run.storage.absolute(checkpoint.path).unlink()
    assert run.attempt(str(TRAINER)).status == "succeeded"
    assert run.steps == list(range(1, 61))


def test_a_flood_of_events_is_stored_whole(run: Run) -> None:
    assert run.attempt(odd("floods")).summary == {"steps": 30_000}
    assert run.steps == list(range(1, 30_001))
