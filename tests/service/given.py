"""Factories of datasets, jobs, claims and events for tests."""

from typing import Any

from service import datasets, jobs, leases
from service.db.models import Dataset, Job
from service.db.session import Database
from ssl_core import config, events

SHA = "ab" * 32
PRETRAIN = {"method": {"name": "simclr"}, "batch_size": 32}


def report(images: int = 100, classes: int = 4, test: int = 0, channels: int = 3) -> dict[str, Any]:
    """Return a dataset report of `images` training images in balanced classes, and `test` unlabelled test images."""
    statistics = {"mean": [0.5] * channels, "std": [0.25] * channels}
    per_class = [images // classes] * classes if classes else []
    train = {"images": images, "labelled": images if classes else 0, "per_class": per_class}
    none = {"images": 0, "labelled": 0, "per_class": [0] * classes}
    names = [f"class {index}" for index in range(classes)]
    splits = {"train": train, "val": none, "test": none | {"images": test}}
    return {"format": 1, "classes": names, "splits": splits, **statistics}


def create_dataset(database: Database, tenant: str, sha256: str = SHA, **fields: Any) -> Dataset:
    with database.writing() as session:
        return datasets.create(session, tenant, name="pictures", sha256=sha256, size_bytes=1000, **fields)


def create_ready_dataset(
    database: Database,
    tenant: str,
    sha256: str = SHA,
    images: int = 100,
    classes: int = 4,
    test: int = 0,
    channels: int = 3,
) -> str:
    """Return the id of a dataset whose ingestion has succeeded."""
    dataset = create_dataset(database, tenant, sha256)
    claim = claim_job(database, "data")
    with database.writing() as session:
        run = (claim.job_id, claim.attempt)
        leases.record_events(
            session, *run, 60, [events.Result(report(images, classes, test, channels))], f"datasets/{dataset.id}/a1"
        )
        leases.finish(session, *run, "succeeded")
    return dataset.id


def submit_job(database: Database, tenant: str, dataset: str, kind: str = "pretrain", **fields: Any) -> Job:
    settings = fields.pop("config", PRETRAIN if kind == "pretrain" else {})
    with database.writing() as session:
        return jobs.submit(session, tenant, dataset, config.parse(settings, kind), **fields)


def claim_job(database: Database, queue: str = "train", lease_seconds: float = 60) -> leases.Claim:
    with database.writing() as session:
        claim = leases.claim(session, queue, "worker-1", lease_seconds)
    assert claim is not None
    return claim


def record_events(database: Database, claim: leases.Claim, *batch: events.Event) -> leases.Signal:
    with database.writing() as session:
        folder = f"jobs/{claim.job_id}/a{claim.attempt}"
        return leases.record_events(session, claim.job_id, claim.attempt, 60, batch, folder)


def finish_job(database: Database, claim: leases.Claim, status: Any = "succeeded", error: Any = None) -> None:
    with database.writing() as session:
        leases.finish(session, claim.job_id, claim.attempt, status, error)


def release_job(database: Database, claim: leases.Claim, *, counts: bool = True, **options: Any) -> str:
    reason = "killed by signal 9"
    with database.writing() as session:
        return leases.release(session, claim.job_id, claim.attempt, reason=reason, counts=counts, **options)


def get_job(database: Database, job_id: str) -> Job:
    """Return the current row of the job."""
    with database.reading() as session:
        return session.get_one(Job, job_id)


def metrics(step: int, **values: float | None) -> events.Metrics:
    return events.Metrics(step=step, epoch=step / 10, time=1000.0 + step, values=values or {"loss": 1.0 / (step + 1)})


def checkpoint(step: int) -> events.Checkpoint:
    return events.Checkpoint(step, step / 10, f"checkpoint-{step:09d}.pt", SHA, 10)


def model(**card: Any) -> events.Model:
    return events.Model(path="model", sha256=SHA, size_bytes=10, dim=64, card={"format": 1, **card})
