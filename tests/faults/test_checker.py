"""The checker of the nemesis: it accepts a sound history, and objects to each that was doctored."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from service import garbage, idempotency, keys, leases, lifecycle
from service.db.models import Job
from service.db.session import Database
from service.storage import Storage
from ssl_core import events as ev
from ssl_core.files import write_artifact
from tests.faults import trainer
from tests.faults.nemesis import audit, checker, history
from tests.faults.nemesis.history import History, Promise
from tests.faults.workload import Workload, toy_config
from tests.service import given


def run_toy(database: Database, storage: Storage, job: Job) -> None:
    """Run the job with the toy trainer, in two attempts: the first is released after a checkpoint."""
    claim = given.claim_job(database)
    resumed = _record(database, storage, claim, None, steps=15)
    with database.writing() as session:
        leases.release(session, claim.job_id, claim.attempt, reason="killed", counts=True)
    claim = given.claim_job(database)
    _record(database, storage, claim, resumed, steps=None)
    given.finish_job(database, claim)


def _record(
    database: Database, storage: Storage, claim: leases.Claim, resume: Path | None, steps: int | None
) -> Path | None:
    out = storage.attempt_dir(claim.job_id, claim.attempt)
    out.mkdir(parents=True)
    model = b"" if claim.model_path is None else (storage.root / claim.model_path / "weights.safetensors").read_bytes()
    written, last = [], None
    for event in trainer._train(claim.config, model, out, resume):
        written.append(event)
        if isinstance(event, ev.Checkpoint):
            last = out / event.path
        if isinstance(event, ev.Metrics) and event.step == steps:
            break
    given.record_events(database, claim, *written)
    return last


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path) -> tuple[Path, list[Promise]]:
    """A folder with the database and the storage of two jobs that ran without faults, and what was promised."""
    folder = tmp_path_factory.mktemp("history")
    shutil.copy(_sqlite_template, folder / "twoviews.db")
    database, storage = Database(f"sqlite:///{folder / 'twoviews.db'}"), Storage(folder / "data")
    audit.install(database)
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "nemesis").id
    dataset = given.create_ready_dataset(database, tenant)
    config = toy_config(3, 2) | {"checkpoints": {"every_steps": 5}}
    made = given.submit_job(database, tenant, dataset, config=config, name="number 0")
    run_toy(database, storage, made)
    used = given.submit_job(database, tenant, dataset, "knn_eval", config={"seed": 4}, name="number 1", model=made.id)
    run_toy(database, storage, used)
    promises = []
    for number, job in enumerate((made, used)):
        promises.append(Promise(f"number {number}", f"number-{number}", job.kind, job.id))
        stored = idempotency.StoredResponse(202, f"/jobs/{job.id}", {"id": job.id})
        with database.writing() as session:
            idempotency.store_response(session, tenant, f"number-{number}", "f" * 64, stored)
    with database.reading() as session:
        live, known = garbage.live_paths(session), garbage.known_folders(session)
    storage.sweep(live, known, time.time() + 1)
    database.close()
    return folder, promises


class Doctored:
    """A copy of the history that can be changed, and read again."""

    def __init__(self, folder: Path, promises: list[Promise]) -> None:
        self.database = Database(f"sqlite:///{folder / 'twoviews.db'}")
        self.storage = Storage(folder / "data")
        self.promises = list(promises)
        self.made, self.used = (promise.id for promise in promises)

    def execute(self, statement: str) -> None:
        """Change rows, without the triggers' knowledge."""
        with self.database.writing() as session:
            session.execute(text("DROP TRIGGER IF EXISTS nemesis_audit_jobs"))
            result = session.execute(text(statement.format(made=self.made, used=self.used)))
            assert result.rowcount > 0

    def file(self, pattern: str) -> Path:
        return next(self.storage.root.glob(pattern.format(made=self.made, used=self.used)))

    def read(self) -> History:
        return history.read(self.database, self.storage, self.promises, changes=audit.read(self.database))

    def objections(self) -> str:
        return "\n".join(sentence for found in checker.check(self.read()).values() for sentence in found)


@pytest.fixture
def doctored(recorded: tuple[Path, list[Promise]], tmp_path: Path) -> Iterator[Doctored]:
    folder, promises = recorded
    copy = Doctored(shutil.copytree(folder, tmp_path / "copy"), promises)
    yield copy
    copy.database.close()


def test_a_sound_history_is_accepted(doctored: Doctored) -> None:
    assert doctored.objections() == ""
    seen = doctored.read()
    assert [job.attempt for job in seen.jobs.values() if job.kind != "ingest"] == [2, 2]
    assert sum(len(points) for series in seen.points.values() for points in series.values()) == 50


@pytest.mark.parametrize(
    ("statement", "objection"),
    [
        ("DELETE FROM points WHERE seq = 7", "gaps or duplicates"),
        ("UPDATE points SET value = value + 0.001 WHERE seq = 3", "other values than a run without faults"),
        (
            "INSERT INTO points SELECT series_id, seq + 1000, step, epoch, time, value FROM points WHERE seq = 4",
            "not numbered from 1",
        ),
        ("UPDATE jobs SET attempt = 3 WHERE id = '{made}'", "its last change was to succeeded, attempt 2"),
        ("UPDATE jobs SET status = 'running' WHERE id = '{made}'", "is still running"),
        ("UPDATE nemesis_audit SET attempt = 1, old_attempt = 1 WHERE attempt = 2", "attempt 1 after attempt 1"),
        ("UPDATE nemesis_audit SET old_lease = at + 1 WHERE attempt = 2 AND status = 'running'", "of its lease"),
        ("UPDATE nemesis_audit SET status = 'running' WHERE status = 'succeeded'", "has ended 0 times"),
        ("UPDATE nemesis_audit SET old_status = 'waiting' WHERE status = 'running'", "went from waiting to running"),
        ("DELETE FROM nemesis_audit WHERE status = 'queued'", "was running, attempt 1, and then queued, 1"),
        ("DELETE FROM job_events WHERE seq = 3", "the log has gaps"),
        ("UPDATE job_events SET attempt = 1 WHERE seq = (SELECT max(seq) FROM job_events)", "an earlier attempt has"),
        ("UPDATE jobs SET name = 'number 0' WHERE id = '{used}'", "number 0 was accepted 2 times"),
        ('UPDATE idempotency SET body = \'{{"id": "other"}}\'', "the response that is stored"),
        ("DELETE FROM idempotency WHERE key = 'number-1'", "the response that is stored"),
        ("UPDATE checkpoints SET sha256 = 'ab' WHERE job_id = '{made}'", "has another SHA-256"),
        ("UPDATE models SET sha256 = 'ab'", "the weights differ"),
        ("UPDATE artifacts SET name = 'other.txt'", "its artifacts differ"),
        ("DELETE FROM artifacts", "its artifacts differ"),
    ],
)
def test_a_doctored_row_is_found(doctored: Doctored, statement: str, objection: str) -> None:
    doctored.execute(statement)
    assert objection in doctored.objections()


@pytest.mark.parametrize(
    ("statement", "objection"),
    [
        ("DELETE FROM points WHERE seq = 7", "gaps or duplicates"),
        ("UPDATE models SET sha256 = 'ab'", "the weights differ"),
        ("UPDATE jobs SET status = 'failed' WHERE id = '{made}'", "is failed"),
        ("DELETE FROM job_events WHERE seq = (SELECT max(seq) FROM job_events)", "has ended as []"),
    ],
)
def test_a_workload_finds_a_doctored_row_without_an_audit(doctored: Doctored, statement: str, objection: str) -> None:
    workload = Workload(doctored.database, doctored.storage, "tenant", "dataset")
    assert [workload.faults(job) for job in (doctored.made, doctored.used)] == [[], []]
    doctored.execute(statement)
    doctored.execute("DELETE FROM nemesis_audit")
    assert objection in "\n".join(workload.faults(doctored.made))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize(
    ("pattern", "change", "objection"),
    [
        ("jobs/{made}/a2/model/weights.safetensors", Path.unlink, "is missing"),
        ("jobs/{made}/a2/model/weights.safetensors", append, "has another SHA-256"),
        ("jobs/{made}/a2/checkpoint-*", Path.unlink, "is missing"),
        ("jobs/{used}/a2/result.txt", append, "has another SHA-256"),
        ("jobs/{made}/a2", lambda path: write_artifact(path, ".left.tmp", b""), "a temporary file was left"),
        ("jobs", lambda path: (path / "stray").write_bytes(b""), "no row names the file jobs/stray"),
    ],
)
def test_a_doctored_file_is_found(
    doctored: Doctored, pattern: str, change: Callable[[Path], object], objection: str
) -> None:
    change(doctored.file(pattern))
    assert objection in doctored.objections()


def test_a_lost_job_is_found(doctored: Doctored) -> None:
    doctored.promises.append(Promise("number 2", "number-2", "pretrain", "job_lost"))
    assert "acknowledged as job_lost, which does not exist" in doctored.objections()


def test_a_failed_and_an_unrequested_cancelled_job_are_found(doctored: Doctored) -> None:
    with doctored.database.writing() as session:
        jobs = [session.get_one(Job, job_id) for job_id in (doctored.made, doctored.used)]
        for job in jobs:
            job.status = "queued"
        session.flush()
        lifecycle.end(session, jobs[0], "failed", "no")
        lifecycle.end(session, jobs[1], "cancelled", "no")
    found = doctored.objections()
    assert "has failed: {'code': 'failed', 'detail': 'no'}" in found
    assert "its cancellation was not acknowledged" in found
    assert "has ended 2 times" in found


def test_a_process_that_was_left_is_found(doctored: Doctored) -> None:
    seen = doctored.read()
    seen.processes = ["python -m worker"]
    assert checker.check(seen) == {"service": ["left behind: python -m worker"]}
