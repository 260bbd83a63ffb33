"""The supervisor: the outcome of each way in which a trainer can end, with real processes."""

import errno
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Callable

import psutil
import pytest
from sqlalchemy import update

from service import leases, steering
from service.db.models import Job
from service.db.session import Database, now
from tests import logs
from tests.faults import trainer
from tests.processes import alive, soon
from tests.service import given
from tests.worker.conftest import FAULTY_TRAINER, TRAINER, Run
from worker.tasks import JobRunner
from worker.trainer import command
from worker.trainer.process import TrainerProcess
from worker.trainer.supervisor import supervise

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.usefixtures("_short_steps"),
]


def faulty(mode: str) -> str:
    return f"{FAULTY_TRAINER} {mode}"


def supervise_in_thread(run: Run, mode: str) -> threading.Thread:
    """Supervise in a thread of this process, the trainer's parent."""
    thread = threading.Thread(target=run.supervise, args=[mode])
    thread.start()
    return thread


def test_a_result_ends_the_job_with_metrics_and_model(make_run: Callable[..., Run]) -> None:
    run = make_run(epochs=3, seed=5)
    job = run.attempt(str(TRAINER))
    assert (job.status, job.attempt, job.summary) == ("succeeded", 1, {"steps": 30})
    assert run.steps == list(range(1, 31))
    weights = run.storage.attempt_dir(run.job_id, 1) / "model" / "weights.safetensors"
    assert weights.read_bytes() == trainer.weights(5, 30)
    assert job.made_model_id is not None
    assert not psutil.pid_exists(run.read_pid("pid"))  # and it was reaped


@pytest.fixture
def evaluation(make_run: Callable[..., Run], database: Database, tenant: str) -> Run:
    """A queued evaluation of a model, whose folder is in the storage, and that of its dataset too."""
    made = make_run(epochs=1)
    model = made.attempt(str(TRAINER)).made_model_id
    made.storage.dataset_dir(str(made.job.dataset_id), 1).mkdir(parents=True)
    made.job_id = given.submit_job(database, tenant, str(made.job.dataset_id), "knn_eval", model=model).id
    return made


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "heads.safetensors", ""])
def test_a_job_whose_model_is_missing_is_not_retried_and_says_so(evaluation: Run, name: str) -> None:
    (folder,) = evaluation.storage.root.glob("jobs/*/a1/model")
    if name:
        (folder / name).unlink()
    else:
        shutil.rmtree(folder)
    ended = evaluation.attempt(str(TRAINER))
    assert (ended.status, ended.attempt) == ("failed", 1)
    missing = name or "model.json, weights.safetensors, heads.safetensors"
    assert ended.error == {
        "code": "model_missing",
        "detail": f"Files of the model {evaluation.job.model_id} are missing from the storage: {missing}.",
    }


def test_a_job_waits_for_a_storage_that_is_away(evaluation: Run) -> None:
    root = evaluation.storage.root
    root.rename(root.with_name("unmounted"))
    root.mkdir()  # an empty mount point
    assert evaluation.attempt(str(TRAINER)).status == "queued"
    shutil.rmtree(root)
    root.with_name("unmounted").rename(root)
    assert evaluation.attempt(str(TRAINER)).status == "succeeded"


def test_a_trainer_gets_no_credentials(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "TWOVIEWS_DATABASE_URL": "postgresql://x",
        "TWOVIEWS_BROKER_URL": "redis://x",
        "TWOVIEWS_ENCODER_TOKEN": "x",
    }
    for name, value in {**secrets, "TWOVIEWS_MAX_IMAGES": "7"}.items():
        monkeypatch.setenv(name, value)
    process = TrainerProcess([sys.executable, "-c", "import os; print(*os.environ)"])
    lines = []
    while not process.has_ended:
        lines += process.read(0.1)
    exported = b" ".join(lines + process.kill_and_reap()).decode().split()
    assert "TWOVIEWS_MAX_IMAGES" in exported
    assert secrets.keys().isdisjoint(exported)


def test_a_killed_trainer_requeues_the_job(run: Run) -> None:
    job = run.attempt(faulty("kills_itself"))
    assert (job.status, job.fruitless) == ("queued", 1)
    assert "SIGKILL" in job.status_detail
    assert "memory" in job.status_detail


def test_an_exit_with_code_0_without_a_result_is_a_failure(run: Run) -> None:
    job = run.attempt(faulty("exits_without_result"))
    assert job.status == "queued"
    assert "without a result" in job.status_detail


def test_the_last_line_of_stderr_is_the_reason_and_its_tail_is_logged(run: Run) -> None:
    job = run.attempt(faulty("exits_with_traceback"))
    assert job.status_detail.endswith("exit code 3: RuntimeError: out of luck")
    assert [event.data["stderr"] for event in run.events if event.code == "attempt_failed"] == [
        "Traceback: somewhere\nRuntimeError: out of luck"
    ]


def test_the_log_has_the_trainers_lines_and_its_traceback_as_one_record_with_the_ids_of_the_attempt(
    run: Run, database_url: str
) -> None:
    settings = run.settings(faulty("logs_and_raises")).model_copy(update={"database_url": database_url})
    with logs.captured() as records:
        JobRunner("worker", settings, lambda: False, lambda: False).run_queued_jobs("train")
    ids = {"job": run.job_id, "attempt": 1, "owner": run.tenant}
    assert [record for record in records if not record.items() >= ids.items()] == []
    by_message = {record["message"]: record for record in records}
    assert by_message["The loss is high."].items() >= {"level": "WARNING", "logger": "trainer", "code": "high"}.items()
    assert by_message["careful"].items() >= {"level": "INFO", "logger": "trainer"}.items()
    traceback = by_message["RuntimeError: out of luck"]
    assert traceback["level"] == "ERROR"
    assert traceback["traceback"].startswith("Traceback (most recent call last):\n  File ")
    assert traceback["traceback"].endswith("\nRuntimeError: out of luck")
    assert by_message["the last words"]["logger"] == "trainer"
    assert records[0]["message"] == f"Attempt 1 at {run.job_id} (pretrain)"
    assert records[-1]["message"] == f"Attempt 1 at {run.job_id} has ended: failed"
    assert len(records) == 6


def test_three_fruitless_attempts_in_a_row_fail_the_job_with_the_reason(run: Run) -> None:
    statuses = [run.attempt(faulty("exits_with_traceback")).status for _ in range(3)]
    assert statuses == ["queued", "queued", "failed"]
    assert run.job.error["code"] == "no_progress"
    assert "out of luck" in run.job.error["detail"]


def test_a_diverged_run_fails_at_once_and_is_not_retried(run: Run) -> None:
    job = run.attempt(faulty("diverges"))
    assert job.status == "failed"
    assert job.error == {"code": "diverged", "detail": "The loss is not a number.", "step": 7}


def test_a_retryable_failure_is_retried(run: Run) -> None:
    job = run.attempt(faulty("fails_with_retry"))
    assert (job.status, job.fruitless) == ("queued", 1)
    assert "device_lost" in job.status_detail


def test_a_full_storage_requeues_the_job_uncounted(run: Run) -> None:
    job = run.attempt(faulty("fails_with_full_storage"))
    assert (job.status, job.fruitless) == ("queued", 0)
    assert job.status_detail == "The storage is full."


def test_a_full_storage_at_the_start_requeues_the_job_uncounted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_no_space(*_: object) -> list[str]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "build", raise_no_space)
    job = run.attempt(faulty("exits_without_result"))
    assert (job.status, job.fruitless) == ("queued", 0)
    assert "storage is full" in job.status_detail


def test_the_reason_of_a_trainer_that_cannot_be_started_has_no_path(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[str]:
        raise OSError(errno.EIO, "Input/output error", "/a/path/of/the/server")

    monkeypatch.setattr(command, "build", fail)
    job = run.attempt(faulty("exits_without_result"))
    assert (job.status, job.fruitless) == ("queued", 1)
    assert "the trainer could not be started: Input/output error" in job.status_detail
    assert "server" not in job.status_detail


def test_invalid_lines_are_logged_at_most_twenty_times_and_ignored(run: Run) -> None:
    job = run.attempt(faulty("writes_garbage"))
    assert (job.status, job.summary) == ("succeeded", {"after": "garbage"})
    logged = [event for event in run.events if event.code == "not_an_event"]
    assert len(logged) == 20
    assert max(event.data["bytes"] for event in logged) == 4 * 2**20
    assert run.steps == [1]


def test_a_log_that_cannot_be_stored_is_replaced_by_a_warning(run: Run) -> None:
    assert run.attempt(faulty("writes_bad_log")).status == "succeeded"
    assert run.steps == list(range(1, 21))
    assert [event.level for event in run.events if event.code == "bad_event"] == ["warning"]


@pytest.mark.parametrize("mode", ["writes_bad_metrics", "writes_bad_model"])
def test_a_trainer_that_breaks_the_protocol_fails_the_job(run: Run, mode: str) -> None:
    job = run.attempt(faulty(mode))
    assert job.status == "failed"
    assert job.error["code"] == "bad_event"


def test_a_command_that_cannot_start_is_a_failure(run: Run) -> None:
    claim = given.claim_job(run.database)
    settings = run.settings("").model_copy(update={"trainer_command": ["/nowhere/python"]})
    supervise(claim, run.database, run.storage, settings, run.stop.is_set)
    assert run.job.status == "queued"
    assert "could not be started" in run.job.status_detail


@pytest.mark.parametrize(("mode", "status"), [("hangs_after_result", "succeeded"), ("closes_stdout", "queued")])
def test_a_trainer_that_can_write_no_more_events_is_killed_after_the_grace_time(
    run: Run, mode: str, status: str
) -> None:
    run.grace_seconds = 0.3
    assert run.attempt(faulty(mode)).status == status
    assert not alive(run.read_pid("pid"))


def test_the_trainers_children_are_killed_and_do_not_delay_the_outcome(run: Run) -> None:
    assert run.attempt(faulty("leaves_child")).status == "succeeded"
    soon(lambda: not alive(run.read_pid("child")))


def test_a_detached_child_does_not_delay_the_outcome(run: Run) -> None:
    assert run.attempt(faulty("leaves_detached_child")).status == "succeeded"
    assert alive(run.read_pid("child"))
    os.kill(run.read_pid("child"), 9)


def test_cancel_stops_the_trainer_and_keeps_its_checkpoint(make_run: Callable[..., Run]) -> None:
    run = make_run(epochs=1000)
    thread = supervise_in_thread(run, str(TRAINER))
    soon(lambda: run.checkpoints)
    with run.database.writing() as session:
        assert steering.cancel(session, run.tenant, run.job_id).status == "cancelling"
    thread.join()
    assert run.job.status == "cancelled"
    newest = run.checkpoints[0]
    file = run.storage.absolute(newest.path)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == newest.sha256
    assert newest.step == run.steps[-1]


def test_cancel_kills_a_trainer_that_ignores_sigterm(run: Run) -> None:
    run.grace_seconds = 0.3
    thread = supervise_in_thread(run, faulty("ignores_sigterm"))
    soon(lambda: run.steps)
    with run.database.writing() as session:
        steering.cancel(session, run.tenant, run.job_id)
    thread.join()
    assert run.job.status == "cancelled"
    assert not alive(run.read_pid("pid"))


def test_a_job_that_has_run_for_its_maximum_time_is_not_started(run: Run) -> None:
    with run.database.writing() as session:
        session.execute(update(Job).values(max_runtime=60, run_seconds=61))
    ended = run.attempt(str(TRAINER))
    assert (ended.status, ended.error["code"], run.steps) == ("failed", "max_runtime", [])


def test_a_stopping_worker_requeues_the_job_uncounted_and_the_next_attempt_resumes(
    make_run: Callable[..., Run],
) -> None:
    run = make_run(epochs=10, seed=3)
    run.stop_when(lambda: run.steps)
    stopped = run.job
    assert (stopped.status, stopped.fruitless) == ("queued", 0)
    resumed_from = run.checkpoints[0].step
    assert resumed_from == len(run.steps)
    assert run.attempt(str(TRAINER)).status == "succeeded"
    assert run.steps == list(range(1, 101))
    weights = run.storage.attempt_dir(run.job_id, 2) / "model" / "weights.safetensors"
    assert weights.read_bytes() == trainer.weights(3, 100)


def test_a_lost_lease_kills_the_trainer_and_ends_all_writes(run: Run) -> None:
    thread = supervise_in_thread(run, faulty("writes_steadily"))
    soon(lambda: run.steps)
    with run.database.writing() as session:
        session.execute(update(Job).values(lease_until=now() - 1))
        assert leases.reap(session) == [run.job_id]
    written = run.steps, len(run.events)
    thread.join()
    assert not alive(run.read_pid("pid"))
    assert (run.job.status, run.steps, len(run.events)) == ("queued", *written)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_missing_or_damaged_checkpoint_is_skipped(make_run: Callable[..., Run], damage: str) -> None:
    run = make_run(epochs=6, seed=4)
    run.stop_when(lambda: len(run.checkpoints) == 2)
    newest, older = run.checkpoints
    file = run.storage.absolute(newest.path)
    file.unlink() if damage == "missing" else file.write_bytes(b"other")
    assert run.attempt(str(TRAINER)).status == "succeeded"
    (warning,) = [event for event in run.events if event.code == "checkpoint_damaged"]
    assert warning.data["step"] == newest.step
    assert damage in warning.message
    assert older.step < newest.step
    assert run.steps == list(range(1, 61))


def test_without_a_good_checkpoint_the_run_starts_over(make_run: Callable[..., Run]) -> None:
    run = make_run(epochs=6, seed=4)
    run.stop_when(lambda: len(run.checkpoints) == 2)
    for checkpoint in run.checkpoints:
        run.storage.absolute(checkpoint.path).unlink()
    assert run.attempt(str(TRAINER)).status == "succeeded"
    assert run.steps == list(range(1, 61))


def test_thirty_thousand_events_are_all_stored(run: Run) -> None:
    assert run.attempt(faulty("writes_many_events")).summary == {"steps": 30_000}
    assert run.steps == list(range(1, 30_001))
